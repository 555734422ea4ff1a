//! What a server of a cluster says instead of an answer: not here, or not now.
//!
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>, "Redirection and resharding".) In
//! each case the command has had no effect, so that it can be tried again.

/// A redirection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Redirection<'a> {
    /// The slot that it is about, where it says so.
    pub(crate) slot: Option<u16>,
    /// Whether another layout is to be looked for. While a slot is being moved there is none yet.
    pub(crate) is_lasting: bool,
    /// The host and the port to ask, this one time.
    pub(crate) ask: Option<(&'a str, u16)>,
}

impl<'a> Redirection<'a> {
    /// Reads an error; none: it is another one.
    pub(crate) fn parse(error: &'a str) -> Option<Self> {
        let mut words = error.split(' ');
        match words.next()? {
            kind @ ("MOVED" | "ASK") => {
                let slot = words.next().and_then(|slot| slot.parse().ok());
                let address = words.next().and_then(|address| address.rsplit_once(':'));
                let address = address.and_then(|(host, port)| Some((host, port.parse().ok()?)));
                Some(Self { slot, is_lasting: kind == "MOVED", ask: address.filter(|_| kind == "ASK") })
            }
            kind @ ("TRYAGAIN" | "CLUSTERDOWN") => {
                Some(Self { slot: None, is_lasting: kind == "CLUSTERDOWN", ask: None })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_are_told_from_other_errors() {
        let read = |error| Redirection::parse(error).map(|found| (found.slot, found.is_lasting, found.ask));
        assert_eq!(read("MOVED 3999 127.0.0.1:6381"), Some((Some(3999), true, None)));
        assert_eq!(read("ASK 1 ::1:7000"), Some((Some(1), false, Some(("::1", 7000)))));
        assert_eq!(read("CLUSTERDOWN The cluster is down"), Some((None, true, None)));
        assert_eq!(read("TRYAGAIN Multiple keys request during rehashing of slot"), Some((None, false, None)));
        assert_eq!(read("MOVED nowhere"), Some((None, true, None)));
        for other in ["", "NOPERM MOVED", "ERR unknown command", "MOVEDX 1"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
