//! Copies of the publisher with one mistake each (made by `build.rs`): the models find every one of them.

macro_rules! mutant {
    ($name:ident: $model:ident, $found:literal) => {
        mod $name {
            mod publisher {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
            }
            mod models {
                include!("models.rs");
            }

            #[test]
            #[should_panic(expected = $found)]
            fn is_found() {
                models::$model(Some(3));
            }
        }
    };
}

mutant!(woken_before_the_bell_changes: frame_of_two, "deadlock");
mutant!(asleep_without_a_second_look: frame_of_two, "deadlock");
mutant!(bell_read_at_the_last_moment: frame_of_two, "deadlock");
mutant!(slot_vacant_before_its_committer_is_awake: slot_used_again, "deadlock");
mutant!(applied_in_no_order_with_durable: frame_of_two, "deadlock");
mutant!(visible_read_without_acquire: frame_of_two, "Causality violation");
mutant!(leader_not_asked_again_after_it_fell_asleep: one_leads, "deadlock");
mutant!(leader_woken_under_the_bit_of_another: one_leads, "deadlock");
mutant!(polled_without_a_second_look: polled, "deadlock");
