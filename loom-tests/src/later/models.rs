// Included in the mutants too.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;

use super::later::{Later, Work};

/// Numbers that are entered in a register later.
#[derive(Default)]
struct Entering {
    register: Option<Arc<Register>>,
    pending: Vec<usize>,
}

/// Relaxed on purpose: whoever reads it has no order but that of the structure under test.
struct Register {
    entered: [AtomicBool; 2],
}

impl Register {
    fn new() -> Arc<Self> {
        Arc::new(Self { entered: std::array::from_fn(|_| AtomicBool::new(false)) })
    }

    fn enter(&self, number: usize) {
        assert!(!self.entered[number].swap(true, Ordering::Relaxed), "{number} was entered twice");
    }

    fn has(&self, number: usize) -> bool {
        self.entered[number].load(Ordering::Relaxed)
    }
}

impl Work for Entering {
    fn is_done(&self) -> bool {
        self.pending.is_empty()
    }

    fn finish(&mut self) {
        for number in self.pending.drain(..) {
            self.register.as_ref().expect("who adds brings the register").enter(number);
        }
    }
}

/// Puts off the entry of a number, or enters it at once, and then makes it visible as number plus one.
fn put(later: &Later<Entering>, register: &Arc<Register>, visible: &AtomicU64, number: usize) {
    let added: Result<bool, ()> = later.add(|work| {
        work.register = Some(Arc::clone(register));
        work.pending.push(number);
        Ok(true)
    });
    if added != Ok(true) {
        register.enter(number);
    }
    visible.store(number as u64 + 1, Ordering::Release);
}

fn look(later: &Later<Entering>, register: &Register, visible: &AtomicU64) {
    let seen = visible.load(Ordering::Acquire) as usize;
    later.finish_any();
    for number in 0..seen {
        assert!(register.has(number), "{number} is visible and not entered");
    }
}

/// One writer, and two readers of which each may find the work at hand, under way or done by the other.
pub(super) fn two_readers() {
    crate::model(Some(3), || {
        let later = Arc::new(Later::<Entering>::default());
        let (register, visible) = (Register::new(), Arc::new(AtomicU64::new(0)));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (later, register) = (Arc::clone(&later), Arc::clone(&register));
                let visible = Arc::clone(&visible);
                thread::spawn(move || look(&later, &register, &visible))
            })
            .collect();
        put(&later, &register, &visible, 0);
        put(&later, &register, &visible, 1);
        for reader in readers {
            reader.join().unwrap();
        }
        look(&later, &register, &visible);
        assert!(register.has(1));
    });
}

/// Two writers, of which one may find the other adding and then does its work at once; who waits for both finds both done.
pub(super) fn two_writers() {
    crate::model(None, || {
        let later = Arc::new(Later::<Entering>::default());
        let register = Register::new();
        let visible = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let other = {
            let (later, register) = (Arc::clone(&later), Arc::clone(&register));
            let visible = Arc::clone(&visible[1]);
            thread::spawn(move || put(&later, &register, &visible, 1))
        };
        put(&later, &register, &visible[0], 0);
        later.finish_any();
        assert!(register.has(0), "a writer's own is visible and not entered");
        other.join().unwrap();
        later.finish_any();
        assert!(register.has(1), "the other's is visible and not entered");
    });
}
