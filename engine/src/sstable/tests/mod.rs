//! Tests of whole tables: what is written comes back, and damage never does harm.

mod damage;
mod fixtures;
mod round_trip;
