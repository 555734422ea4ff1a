//! What a server of a cluster says instead of an answer: not here, or not now.
//!
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>, "Redirection and resharding".) In each case
//! the command has had no effect, so that it can be tried again.

/// A redirection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Redirection {
    /// The slot that it is about, where it says so.
    pub(crate) slot: Option<u16>,
}

impl Redirection {
    /// Reads an error; none: it is another one.
    pub(crate) fn parse(error: &str) -> Option<Self> {
        let mut words = error.split(' ');
        match words.next()? {
            "MOVED" | "ASK" => Some(Self { slot: words.next().and_then(|slot| slot.parse().ok()) }),
            "TRYAGAIN" | "CLUSTERDOWN" => Some(Self { slot: None }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_are_told_from_other_errors() {
        assert_eq!(Redirection::parse("MOVED 3999 127.0.0.1:6381"), Some(Redirection { slot: Some(3999) }));
        assert_eq!(Redirection::parse("ASK 1 h:1"), Some(Redirection { slot: Some(1) }));
        assert_eq!(Redirection::parse("CLUSTERDOWN The cluster is down"), Some(Redirection { slot: None }));
        assert_eq!(Redirection::parse("MOVED nowhere"), Some(Redirection { slot: None }));
        for other in ["", "NOPERM MOVED", "ERR unknown command", "MOVEDX 1"] {
            assert_eq!(Redirection::parse(other), None, "{other}");
        }
    }
}
