//! Copies with one mistake each (made by `build.rs`): the models find every one of them.

macro_rules! mutant {
    ($name:ident) => {
        mod $name {
            mod later {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
            }
            mod models {
                include!("models.rs");
            }

            #[test]
            #[should_panic(expected = "is visible and not entered")]
            fn is_found() {
                models::two_readers();
            }
        }
    };
}

mutant!(withdrawn_before_it_is_done);
mutant!(withdrawn_without_the_lock);
mutant!(announcement_loaded_without_acquire);
mutant!(not_announced);
