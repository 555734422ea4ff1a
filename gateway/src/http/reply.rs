//! Answers that every route shares.

use axum::Json;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An answer of text, with a newline at its end for those who read it in a terminal.
pub fn text(status: StatusCode, text: impl std::fmt::Display) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{text}\n")).into_response()
}

/// The one-line answer for a path that does not exist; `hint` says what does.
pub fn not_found(uri: &Uri, hint: &str) -> Response {
    #[derive(Serialize)]
    struct NotFound<'a> {
        error: &'a str,
        path: &'a str,
        hint: &'a str,
    }
    let body = NotFound { error: "not found", path: uri.path(), hint };
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}
