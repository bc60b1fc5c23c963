//! Chooses between io_uring and plain system calls, and says why.
//!
//! Many containers forbid io_uring (the usual seccomp profiles do), some kernels lack it: that is
//! normal and costs speed only. What somebody asked for by name is never replaced silently.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use super::open::refuse;
use super::ring::RingSupport;
use crate::error::Result;

/// How requests reach the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Through io_uring, with many requests of one thread in flight.
    Uring,
    /// Through plain system calls on the calling threads.
    Threads,
}

/// What was chosen.
#[derive(Debug)]
pub(super) struct Choice {
    /// How to set up rings, or `None` for plain system calls.
    pub(super) ring: Option<RingSupport>,
    pub(super) description: String,
}

/// Decides by the argument, then by the environment, then by what works.
pub(super) fn choose(
    argument: Option<Backend>,
    environment: Option<&OsStr>,
    probe: impl Fn() -> io::Result<RingSupport>,
) -> Result<Choice> {
    let (wish, by) = match (argument, environment) {
        (Some(backend), _) => (Some(backend), "chosen by the caller"),
        (None, Some(value)) => (Some(parse(value)?), "chosen by RUSTLITE_IO"),
        (None, None) => (None, ""),
    };
    let choice = match wish {
        Some(Backend::Threads) => plain(by),
        Some(Backend::Uring) => with_ring(probe().map_err(|error| {
            refuse(
                "set up",
                Path::new("io_uring"),
                error.kind(),
                format!("{error} ({by}; the backend `threads` works without io_uring)"),
            )
        })?),
        None => match probe() {
            Ok(support) => with_ring(support),
            Err(error) => {
                let choice = plain(&format!("io_uring is not available: {error}"));
                tracing::warn!("{}", choice.description);
                return Ok(choice);
            }
        },
    };
    tracing::info!("{}", choice.description);
    Ok(choice)
}

fn parse(value: &OsStr) -> Result<Backend> {
    match value.to_str() {
        Some("uring") => Ok(Backend::Uring),
        Some("threads") => Ok(Backend::Threads),
        _ => Err(refuse(
            "use the environment variable",
            Path::new("RUSTLITE_IO"),
            io::ErrorKind::InvalidInput,
            format!("its value is {value:?}, expected `uring` or `threads`"),
        )),
    }
}

fn with_ring(support: RingSupport) -> Choice {
    let flavour = if support.single_issuer { " (single issuer, deferred completion)" } else { "" };
    Choice { ring: Some(support), description: format!("I/O backend: io_uring{flavour}") }
}

fn plain(why: &str) -> Choice {
    Choice { ring: None, description: format!("I/O backend: plain system calls ({why})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn works() -> io::Result<RingSupport> {
        Ok(RingSupport { single_issuer: true })
    }

    fn forbidden() -> io::Result<RingSupport> {
        Err(io::Error::from(io::ErrorKind::PermissionDenied))
    }

    #[test]
    fn falls_back_and_says_why_unless_a_backend_was_named() {
        let choice = choose(None, None, forbidden).unwrap();
        assert!(choice.ring.is_none());
        assert!(choice.description.contains("permission denied"), "{}", choice.description);

        let error = choose(Some(Backend::Uring), None, forbidden).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(choose(None, Some(OsStr::new("uring")), forbidden).is_err());
        assert!(choose(None, None, works).unwrap().ring.is_some());
    }

    #[test]
    fn the_argument_wins_over_the_environment_and_nonsense_is_refused() {
        let threads = OsStr::new("threads");
        assert!(choose(None, Some(threads), works).unwrap().ring.is_none());
        assert!(choose(Some(Backend::Uring), Some(threads), works).unwrap().ring.is_some());
        for nonsense in ["", "Uring", "epoll"] {
            let error = choose(None, Some(OsStr::new(nonsense)), works).unwrap_err();
            assert!(error.to_string().contains("RUSTLITE_IO"), "{error}");
        }
    }
}
