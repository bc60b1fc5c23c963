//! What a reader knows of is done, whoever has done it, and nothing is done twice.

#[allow(clippy::module_inception, reason = "the engine's own file")]
#[path = "../../../engine/src/commit/later.rs"]
mod later;

#[cfg(test)]
mod models;
#[cfg(test)]
mod mutants;

#[cfg(test)]
mod tests {
    use super::models;

    #[test]
    fn what_is_visible_is_done_whichever_reader_did_it() {
        models::two_readers();
    }

    #[test]
    fn writers_who_meet_lose_nothing() {
        models::two_writers();
    }
}
