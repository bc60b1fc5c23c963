//! Makes the mutants: copies of modules with one mistake each, which their models must catch.

#![allow(clippy::disallowed_methods, reason = "a build script is no part of the database")]

use std::path::Path;
use std::{env, fs};

/// Name of a mutant, what its source has, and what the mutant has instead.
type Mutant = (&'static str, &'static str, &'static str);

/// Each module and its mutants.
const MODULES: [(&str, &[Mutant]); 2] =
    [("../engine/src/commit/publish.rs", &PUBLISHER), ("../engine/src/commit/later.rs", &LATER)];

const LATER: [Mutant; 4] = [
    (
        "withdrawn_before_it_is_done",
        "        work.finish();\n",
        "        self.announced.store(false, Ordering::Release);\n        work.finish();\n",
    ),
    (
        "withdrawn_without_the_lock",
        "        self.announced.store(false",
        "        drop(work);\n        self.announced.store(false",
    ),
    (
        "announcement_loaded_without_acquire",
        "self.announced.load(Ordering::Acquire)",
        "self.announced.load(Ordering::Relaxed)",
    ),
    ("not_announced", "if added && !work", "if false && !work"),
];

const PUBLISHER: [Mutant; 9] = [
    (
        "woken_before_the_bell_changes",
        "bell.change();\n            bell.wake(EVERYBODY);",
        "bell.wake(EVERYBODY);\n            bell.change();",
    ),
    (
        "asleep_without_a_second_look",
        "            if settled() {\n                return Wake::Settled;\n            }\n            bell.wait",
        "            bell.wait",
    ),
    (
        "bell_read_at_the_last_moment",
        "bell.wait(rung, bit_of(ticket));",
        "let _ = rung;\n            bell.wait(bell.number(), bit_of(ticket));",
    ),
    (
        "slot_vacant_before_its_committer_is_awake",
        "self.rouse(head, &mut asleep);\n                slot.vacant_for.store(head + CAPACITY, Ordering::Release);",
        "slot.vacant_for.store(head + CAPACITY, Ordering::Release);\n                self.rouse(head, &mut asleep);",
    ),
    (
        "applied_in_no_order_with_durable",
        ".applied.store(ticket + 1, Ordering::SeqCst)",
        ".applied.store(ticket + 1, Ordering::Release)",
    ),
    (
        "visible_read_without_acquire",
        "self.visible.load(Ordering::Acquire)\n    }",
        "self.visible.load(Ordering::Relaxed)\n    }",
    ),
    (
        "leader_not_asked_again_after_it_fell_asleep",
        "return self.ask_to_lead(ticket);",
        "return true;",
    ),
    (
        "leader_woken_under_the_bit_of_another",
        "bell.wake(bit_of(ticket))",
        "bell.wake(bit_of(ticket + 1))",
    ),
    (
        "polled_without_a_second_look",
        "        if settled() {\n            return Poll::Ready(());\n        }\n        match &mut *waker",
        "        match &mut *waker",
    ),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for (module, mutants) in MODULES {
        println!("cargo::rerun-if-changed={module}");
        if env::var_os("CARGO_CFG_LOOM").is_some() {
            make(module, mutants);
        }
    }
}

fn make(module: &str, mutants: &[Mutant]) {
    let source = fs::read_to_string(module).expect("the module is readable");
    // An included file has no documentation or attributes of its own.
    let source: String = source
        .lines()
        .filter(|line| !line.starts_with("//!") && !line.starts_with("#!"))
        .fold(String::new(), |all, line| all + line + "\n");
    let directory = env::var_os("OUT_DIR").expect("cargo sets it");
    for (name, right, wrong) in mutants {
        assert_eq!(source.matches(right).count(), 1, "the place for the mutant {name} has changed");
        let path = Path::new(&directory).join(name).with_extension("rs");
        fs::write(path, source.replace(right, wrong)).expect("the output directory is writable");
    }
}
