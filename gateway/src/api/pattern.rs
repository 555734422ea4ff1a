//! Patterns for channel names: `*` any number of characters, `?` one, `\` takes the next as it is.

/// A compiled pattern. Matching takes at most (length of the pattern) x (length of the name) steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Char(char),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than any name is worth.
    #[error("a pattern may have at most {MAX_LENGTH} characters")]
    TooLong,
    /// `\` at the end.
    #[error("a backslash at the end of a pattern takes nothing")]
    Dangling,
}

/// The longest pattern, in characters.
pub const MAX_LENGTH: usize = 1024;

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// See [`PatternError`].
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.chars().take(MAX_LENGTH + 1).count() > MAX_LENGTH {
            return Err(PatternError::TooLong);
        }
        let mut tokens = Vec::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            let token = match char {
                '*' => Token::Any,
                '?' => Token::One,
                '\\' => Token::Char(chars.next().ok_or(PatternError::Dangling)?),
                char => Token::Char(char),
            };
            // Two stars in a row mean one, and would only cost steps.
            if token != Token::Any || tokens.last() != Some(&Token::Any) {
                tokens.push(token);
            }
        }
        Ok(Self(tokens))
    }

    /// Whether all of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        let mut token = 0;
        let mut rest = name.chars();
        // Where to go on from when a match fails: after the last star, which then takes one character more.
        let mut retry = None;
        loop {
            match self.0.get(token) {
                Some(Token::Any) => {
                    token += 1;
                    retry = Some((token, rest.clone()));
                    continue;
                }
                None if rest.as_str().is_empty() => return true,
                expected => {
                    let found = rest.next();
                    let fits = match (expected, found) {
                        (Some(Token::One), Some(_)) => true,
                        (Some(Token::Char(expected)), Some(found)) => *expected == found,
                        _ => false,
                    };
                    if fits {
                        token += 1;
                        continue;
                    }
                }
            }
            let Some((after_star, from)) = retry.as_mut() else { return false };
            if from.next().is_none() {
                return false;
            }
            token = *after_star;
            rest = from.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn stars_question_marks_and_escapes() {
        for (pattern, name) in
            [("", ""), ("*", ""), ("*", "a:b"), ("news:*", "news:"), ("n?ws", "néws"), ("*a*b", "xaab"), (r"\*", "*")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "a"), ("a", ""), ("?", ""), ("news:*", "new"), ("*a*b", "xaabc"), (r"\*", "a")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert_eq!(Pattern::new(r"a\"), Err(PatternError::Dangling));
        assert_eq!(Pattern::new(&"*".repeat(MAX_LENGTH + 1)), Err(PatternError::TooLong));
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        assert!(!matches(&"*a".repeat(500), &"a".repeat(499)));
        assert!(!matches(&format!("{}b", "*a".repeat(500)), &"a".repeat(5000)));
    }

    /// The definition, as directly as it can be written.
    fn by_definition(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some(('*', pattern)), _) => (0..=name.len()).any(|taken| by_definition(pattern, &name[taken..])),
            (Some((p, pattern)), Some((n, name))) => (*p == '?' || p == n) && by_definition(pattern, name),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &name), by_definition(&chars(&pattern), &chars(&name)));
        }
    }
}
