//! Whose pages may open a WebSocket (`client.allowed_origins`). Pure.

/// Allowed origins, as patterns with `*` for any run of characters.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    patterns: Vec<String>,
}

impl Origins {
    /// Patterns are compared without regard to case.
    pub fn new(patterns: &[String]) -> Self {
        Self { patterns: patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect() }
    }

    /// Whether a page of this origin may connect. Requests without an origin come from no browser
    /// and are not asked. A page that the gateway itself served (the demo page) is not special.
    pub fn allow(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.patterns.iter().any(|pattern| matches(pattern.as_bytes(), origin.as_bytes()))
    }
}

/// Whether `text` matches a pattern in which `*` stands for any run of bytes. Linear in the
/// product of the lengths at worst: no pattern can be made to explode.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a match fails: behind the last star, with one more byte given to it.
    let mut retry = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    (p, t) = (star, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_say_who_may_connect() {
        let origins = Origins::new(&["https://Example.com".into(), "https://*.example.org".into()]);
        for (origin, allowed) in [
            ("https://example.com", true),
            ("HTTPS://EXAMPLE.COM", true),
            ("https://example.com:8443", false),
            ("http://example.com", false),
            ("https://a.example.org", true),
            ("https://a.b.example.org", true),
            ("https://example.org", false),
            ("https://example.org.evil.net", false),
        ] {
            assert_eq!(origins.allow(origin), allowed, "{origin}");
        }
    }

    #[test]
    fn a_star_allows_everything_and_nothing_allows_nothing() {
        assert!(Origins::new(&["*".into()]).allow("https://anywhere"));
        assert!(!Origins::default().allow("https://anywhere"));
    }

    #[test]
    fn stars_backtrack() {
        assert!(matches(b"*ab*c", b"aabxabyc"));
        assert!(!matches(b"*ab*c", b"aabxaby"));
        assert!(matches(b"**", b""));
    }
}
