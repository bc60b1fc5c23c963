//! Nobody who waits for a commit sleeps for ever, and whoever wakes up finds what was committed.

#[path = "../../../engine/src/commit/publish.rs"]
mod publisher;

#[cfg(test)]
mod models;
#[cfg(test)]
mod mutants;

#[cfg(test)]
mod tests {
    use super::models;

    #[test]
    fn a_frame_that_becomes_durable_wakes_its_committers() {
        models::frame_of_two(Some(3));
    }

    #[test]
    fn who_is_asked_to_lead_wakes_up_and_the_others_when_it_is_done() {
        models::one_leads(Some(3));
    }

    #[test]
    fn the_bell_of_a_slot_that_is_used_again_wakes_the_right_ones() {
        models::slot_used_again(Some(3));
    }

    #[test]
    fn a_failure_wakes_everybody() {
        models::failure(Some(3));
    }

    #[test]
    fn a_future_that_was_polled_before_is_woken() {
        models::polled(Some(3));
    }
}
