//! What the clients' port serves beside WebSocket.

use axum::Router;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::demo::{self, Demo};
use super::reply;

/// The router of the clients' port: the API (where this port serves it), the demo page (with
/// `--dev`), and for everything else an answer that says where to go.
///
/// `websocket_path` comes here only when a request asks for it without an upgrade.
pub fn router(websocket_path: &str, api: Option<Router>, demo: Option<&Demo>) -> Router {
    let mut router = Router::new();
    if let Some(demo) = demo {
        router = router.merge(demo::router(demo));
    }
    if let Some(api) = api {
        router = router.merge(api);
    }
    // Not a route: a prefix of the API that is configured to the same path must not end the process.
    let websocket_path = websocket_path.to_owned();
    router.fallback(move |uri: Uri| async move {
        if uri.path() == websocket_path {
            return upgrade_required();
        }
        reply::not_found(&uri, "clients connect with WebSocket to /connection/websocket, backends POST to /api/publish")
    })
}

/// Whether axum takes `prefix` as the beginning of a route; it panics over others, with braces among them.
///
/// # Errors
/// What would do, for a person.
pub fn check_prefix(prefix: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    match prefix {
        "" => Ok(()),
        prefix if prefix.starts_with('/') && !prefix.contains("//") && prefix.bytes().all(allowed) => Ok(()),
        _ => Err("a path such as /api: a slash, then letters, digits, and the characters / - . _ ~"),
    }
}

fn upgrade_required() -> Response {
    let text = "this address speaks WebSocket: connect with a Centrifuge SDK, or send the upgrade headers\n";
    (StatusCode::UPGRADE_REQUIRED, [(header::UPGRADE, "websocket"), (header::CONNECTION, "upgrade")], text)
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use axum::routing::any;
    use tower::ServiceExt;

    use super::*;

    async fn get(path: &str) -> (StatusCode, String) {
        let api = Router::new().route("/api", any(|| async { "api" }));
        let router = router("/connection/websocket", Some(api), None);
        let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn prefixes_that_axum_would_panic_over_are_refused() {
        for prefix in ["", "/", "/api", "/v1/push-api/", "/a.b_c~d"] {
            assert_eq!(check_prefix(prefix), Ok(()), "{prefix}");
        }
        for prefix in ["api", "/{api}", "/a*", "//", "/a//b", "/a b", "/ä", "/a?b"] {
            assert!(check_prefix(prefix).is_err(), "{prefix}");
        }
    }

    #[tokio::test]
    async fn unknown_paths_say_where_to_go_and_the_page_is_only_there_with_dev() {
        for path in ["/", "/nonsense?api_key=secret"] {
            let (status, body) = get(path).await;
            assert_eq!(status, StatusCode::NOT_FOUND);
            assert!(body.contains("/connection/websocket") && !body.contains("secret"), "{body}");
        }
        assert_eq!(get("/api").await, (StatusCode::OK, "api".to_owned()));
    }

    #[tokio::test]
    async fn the_websocket_path_without_an_upgrade_says_what_it_is() {
        let (status, body) = get("/connection/websocket").await;
        assert_eq!(status, StatusCode::UPGRADE_REQUIRED);
        assert!(body.contains("WebSocket"), "{body}");
    }
}
