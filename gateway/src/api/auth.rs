//! Who may call the API: whoever knows one of its keys.

use axum::extract::Query;
use axum::http::{HeaderMap, Uri, header};
use serde::Deserialize;
use subtle::{Choice, ConstantTimeEq};

/// The rule for callers.
#[derive(Clone)]
pub enum Auth {
    /// Everybody may call.
    Insecure,
    /// Whoever names one of these keys may call; with no keys, nobody.
    Keys(Vec<String>),
}

impl Auth {
    /// Keys as configured; empty ones are left out, since an empty key would let in a caller who sends none.
    pub fn keys(keys: impl IntoIterator<Item = String>) -> Self {
        Self::Keys(keys.into_iter().filter(|key| !key.is_empty()).collect())
    }

    /// Whether a request with these headers and this address may go on.
    ///
    /// The key is taken from `X-API-Key`, else from `Authorization: apikey <key>`, else from the
    /// query's `api_key`. The time it takes says nothing about how much of a key is right.
    pub fn permits(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let Self::Keys(keys) = self else { return true };
        let Some(given) = given_key(headers, uri) else { return false };
        let same = |key: &String| key.as_bytes().ct_eq(&given);
        // Every key is compared, whichever matched.
        keys.iter().fold(Choice::from(0), |any, key| any | same(key)).into()
    }
}

impl std::fmt::Debug for Auth {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Insecure => f.write_str("Insecure"),
            Self::Keys(keys) => write!(f, "Keys({})", keys.len()),
        }
    }
}

fn given_key(headers: &HeaderMap, uri: &Uri) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Parameters {
        api_key: Option<String>,
    }
    if let Some(key) = headers.get("x-api-key") {
        return Some(key.as_bytes().to_vec());
    }
    if let Some(value) = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes())
        && let Some((scheme, key)) = value.split_at_checked("apikey ".len())
        && scheme.eq_ignore_ascii_case(b"apikey ")
    {
        return Some(key.trim_ascii().to_vec());
    }
    uri.query().filter(|query| query.contains("api_key"))?;
    let Query(parameters) = Query::<Parameters>::try_from_uri(uri).ok()?;
    parameters.api_key.map(String::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(auth: &Auth, headers: &[(&'static str, &'static str)], uri: &'static str) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        auth.permits(&headers, &Uri::from_static(uri))
    }

    #[test]
    fn each_place_for_the_key_is_looked_at() {
        let auth = Auth::keys(["first".to_owned(), "second key".to_owned()]);
        for key in ["first", "second key"] {
            assert!(permits(&auth, &[("x-api-key", key)], "/api/info"));
        }
        assert!(permits(&auth, &[("authorization", "apikey first")], "/api/info"));
        assert!(permits(&auth, &[("authorization", "ApiKey second key")], "/api/info"));
        assert!(permits(&auth, &[], "/api/info?a=b&api_key=second%20key"));
    }

    #[test]
    fn a_wrong_or_missing_key_is_refused() {
        let auth = Auth::keys(["first".to_owned()]);
        assert!(!permits(&auth, &[], "/api/info"));
        assert!(!permits(&auth, &[("x-api-key", "")], "/api/info"));
        assert!(!permits(&auth, &[("x-api-key", "firs")], "/api/info"));
        assert!(!permits(&auth, &[("x-api-key", "first1")], "/api/info"));
        assert!(!permits(&auth, &[("authorization", "Bearer first")], "/api/info"));
        assert!(!permits(&auth, &[("authorization", "apikey")], "/api/info"));
        assert!(!permits(&auth, &[], "/api/info?api_key=last"));
        // The header goes first, also when it is wrong.
        assert!(!permits(&auth, &[("x-api-key", "wrong")], "/api/info?api_key=first"));
    }

    #[test]
    fn without_keys_nobody_is_let_in_and_insecure_lets_everybody_in() {
        let none = Auth::keys([String::new()]);
        assert!(!permits(&none, &[], "/api/info"));
        assert!(!permits(&none, &[("x-api-key", "")], "/api/info"));
        assert!(permits(&Auth::Insecure, &[], "/api/info"));
    }

    #[test]
    fn keys_do_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", Auth::keys(["secret".to_owned()])), "Keys(1)");
    }
}
