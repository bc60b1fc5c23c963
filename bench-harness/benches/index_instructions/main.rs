//! Instructions of indexes, counted as those of `benches/instructions` are.
//!
//! A program of its own: what the compiler inlines into one benchmark depends on what else is in its program, by a few percent.
#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "an allocator hands out raw memory")]
#[path = "../instructions/allocator.rs"]
mod allocator;
mod indexes;
#[path = "../instructions/simulated.rs"]
mod simulated;

use gungraun::Callgrind;
use gungraun::prelude::*;

use indexes::indexed;

#[global_allocator]
static ALLOCATOR: allocator::Bump = allocator::Bump;

main!(
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=no", "--branch-sim=no"])),
    library_benchmark_groups = indexed
);
