//! The demo page of `--dev`: one file without anything from outside, which speaks the client protocol itself.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use uuid::Uuid;

const PAGE: &str = include_str!("../../assets/demo.html");

/// What the page shows of this node. It holds the API key, so it is only ever served with `--dev`.
#[derive(Debug, Clone, Serialize)]
pub struct Demo {
    /// Tidegate's version.
    pub version: String,
    /// `embedded` or `redis`.
    pub broker: String,
    /// The key of the API, where it wants one.
    pub api_key: Option<String>,
    /// Where the API lives: `/api`.
    pub api_prefix: String,
    /// Where WebSocket clients connect: `/connection/websocket`.
    pub websocket_path: String,
    /// Where raw TCP clients connect.
    pub tcp_address: Option<String>,
    /// How to reach the Redis: `redis-cli -u redis://...`; absent with the embedded broker.
    pub redis_command: Option<String>,
    /// What a plain `PUBLISH` puts before a channel's name: `push:`.
    pub redis_prefix: String,
}

/// The page at `/`.
pub fn router(demo: &Demo) -> Router {
    // Built at start: between two requests only the nonce differs.
    let page: Arc<str> = PAGE.replace("{{settings}}", &in_script(demo)).into();
    Router::new().route("/", get(move || async move { respond(&page) }))
}

/// The settings as JSON that cannot end the script element that it stands in.
fn in_script(demo: &Demo) -> String {
    let json = serde_json::to_string(demo).unwrap_or_else(|_| "{}".to_owned());
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn respond(page: &str) -> Response {
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (headers, page.replace("{{nonce}}", &nonce)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    fn demo(api_key: &str) -> Demo {
        Demo {
            version: "0.1.0".to_owned(),
            broker: "embedded".to_owned(),
            api_key: Some(api_key.to_owned()),
            api_prefix: "/api".to_owned(),
            websocket_path: "/connection/websocket".to_owned(),
            tcp_address: None,
            redis_command: None,
            redis_prefix: "push:".to_owned(),
        }
    }

    async fn page(api_key: &str) -> (String, String) {
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = router(&demo(api_key)).oneshot(request).await.unwrap();
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (policy, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_page_holds_its_settings_and_no_placeholder() {
        let (_, page) = page("key-1").await;
        assert!(page.contains(r#""api_key":"key-1""#));
        assert!(!page.contains("{{"), "a placeholder was left");
    }

    #[tokio::test]
    async fn a_setting_cannot_end_the_script_that_holds_it() {
        let key = "</script><script>alert('&')</script>{{nonce}}";
        let (_, page) = page(key).await;
        assert!(!page.contains("<script>alert"));
        let from = page.find(r#"id="settings">"#).unwrap() + r#"id="settings">"#.len();
        let json = page[from..].split_once("</script>").unwrap().0;
        let settings: serde_json::Value = serde_json::from_str(json).unwrap();
        assert!(settings["api_key"].as_str().unwrap().starts_with("</script><script>alert('&')</script>"));
    }

    #[tokio::test]
    async fn scripts_run_by_a_nonce_that_is_new_each_time_and_nothing_comes_from_outside() {
        let ((first, page), (second, _)) = (page("k").await, page("k").await);
        assert_ne!(first, second);
        let nonce = first.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!(page.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        for foreign in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
    }
}
