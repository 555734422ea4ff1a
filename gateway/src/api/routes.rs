//! The axum router: from an HTTP request to a method and back.

use std::error::Error as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http_body_util::LengthLimitError;
use serde::Serialize;

use super::Api;
use super::batch::find_method;
use super::error::ApiError;
use super::execute::{Answer, CallError, MAX_ITEMS, Results};
use super::method::Method;
use super::request::Line;
use super::stats::Rejection;

/// The header with which a caller asks for errors as HTTP statuses.
const ERROR_MODE: &str = "x-centrifugo-error-mode";

/// The API's routes, to be merged with what else the listener serves.
pub fn router(api: Arc<Api>) -> Router {
    let prefix = api.settings.prefix.trim_end_matches('/').to_owned();
    let lines = if prefix.is_empty() { "/" } else { &prefix };
    Router::new()
        .route(&format!("{prefix}/{{method}}"), post(one_method))
        .route(lines, post(many_lines))
        .with_state(api)
}

/// `POST {prefix}/<method>`: the body is the method's parameters.
async fn one_method(State(api): State<Arc<Api>>, Path(name): Path<String>, request: Request<Body>) -> Response {
    let statuses = wants_statuses(&api, request.headers());
    let method = match admit(&api, &request).map(|()| find_method(&api, &name)) {
        Err(refused) => return refused,
        // A path that does not exist is a 404 in any mode; a method that is not there yet is an answer.
        Ok(Err(error)) if error.status() == StatusCode::NOT_FOUND => return failure(StatusCode::NOT_FOUND, error),
        Ok(Err(error)) => return answer(statuses, Err(error)),
        Ok(Ok(method)) => method,
    };
    let body = match read_body(&api, request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let result = match as_text(&api, &body) {
        Ok(params) => api.call(method, params, &body).await,
        Err(refused) => return refused,
    };
    match (result, method) {
        // The one result that has no wrapper.
        (Ok(batch), Method::Batch) => json(StatusCode::OK, &batch),
        (Ok(result), _) => answer(statuses, Ok(result)),
        (Err(CallError::Failed(error)), _) => answer(statuses, Err(error)),
        (Err(CallError::Malformed(error)), _) => malformed(&api, &error),
    }
}

/// `POST {prefix}`: one `{"method", "params"}` after the other; answers stand on lines in the same order.
async fn many_lines(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    if let Err(refused) = admit(&api, &request) {
        return refused;
    }
    let body = match read_body(&api, request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    // All lines are read before the first is acted on, so that a 400 means that nothing was done.
    let lines: Result<Vec<Line<'_>>, _> = serde_json::Deserializer::from_slice(&body).into_iter().collect();
    let lines = match lines {
        Ok(lines) => lines,
        Err(error) => return malformed(&api, &error),
    };
    if lines.is_empty() || lines.len() > MAX_ITEMS {
        let text = format!("the body holds {} commands; between 1 and {MAX_ITEMS} would do", lines.len());
        return failure(StatusCode::BAD_REQUEST, ApiError::bad_request(text));
    }
    let mut answers = Vec::new();
    for line in lines {
        let answer: Answer<Results> = one_line(&api, line, &body).await.into();
        if let Err(error) = serde_json::to_writer(&mut answers, &answer) {
            return unserializable(&error);
        }
        answers.push(b'\n');
    }
    ([(header::CONTENT_TYPE, "application/json")], answers).into_response()
}

async fn one_line(api: &Api, line: Line<'_>, body: &Bytes) -> Result<Results, ApiError> {
    let method = find_method(api, &line.method)?;
    api.call_command(method, line.params.map_or("", |params| params.get()), body).await
}

/// Lets callers with a key in, before anything of the body is read.
#[allow(clippy::result_large_err, reason = "the error is the answer, made once per refused request")]
fn admit(api: &Api, request: &Request<Body>) -> Result<(), Response> {
    if api.auth.permits(request.headers(), request.uri()) {
        return Ok(());
    }
    api.stats.reject(Rejection::Unauthorized);
    let text = "unauthorized: give an API key in the header X-API-Key\n";
    Err((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "apikey")], text).into_response())
}

/// Reads the body within its bounds.
async fn read_body(api: &Api, request: Request<Body>) -> Result<Bytes, Response> {
    let max = api.settings.max_body;
    let reading = axum::body::to_bytes(request.into_body(), max);
    let (status, rejection, text) = match tokio::time::timeout(api.settings.body_timeout, reading).await {
        Ok(Ok(body)) => return Ok(body),
        Ok(Err(error)) if error.source().is_some_and(|source| source.is::<LengthLimitError>()) => {
            (StatusCode::PAYLOAD_TOO_LARGE, Rejection::TooLarge, format!("the body may have {max} bytes"))
        }
        Ok(Err(error)) => (StatusCode::BAD_REQUEST, Rejection::BodyNotReceived, format!("the body: {error}")),
        Err(_) => {
            let text = format!("the body did not arrive within {:?}", api.settings.body_timeout);
            (StatusCode::REQUEST_TIMEOUT, Rejection::BodyNotReceived, text)
        }
    };
    api.stats.reject(rejection);
    Err(failure(status, ApiError::bad_request(text)))
}

#[allow(clippy::result_large_err, reason = "the error is the answer, made once per refused request")]
fn as_text<'a>(api: &Api, body: &'a Bytes) -> Result<&'a str, Response> {
    simdutf8::basic::from_utf8(body).map_err(|_| {
        api.stats.reject(Rejection::Malformed);
        failure(StatusCode::BAD_REQUEST, ApiError::bad_request("the body is not UTF-8"))
    })
}

fn malformed(api: &Api, error: &serde_json::Error) -> Response {
    api.stats.reject(Rejection::Malformed);
    failure(StatusCode::BAD_REQUEST, ApiError::bad_request(format!("the body does not fit: {error}")))
}

fn wants_statuses(api: &Api, headers: &HeaderMap) -> bool {
    api.settings.transport_errors || headers.get(ERROR_MODE).is_some_and(|mode| mode == "transport")
}

fn answer(statuses: bool, result: Result<Results, ApiError>) -> Response {
    let status = match &result {
        Err(error) if statuses => error.status(),
        _ => StatusCode::OK,
    };
    json(status, &Answer::from(result))
}

fn failure(status: StatusCode, error: ApiError) -> Response {
    json(status, &Answer::<()>::Error(error))
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => unserializable(&error),
    }
}

fn unserializable(error: &serde_json::Error) -> Response {
    tracing::error!(%error, "an API answer could not be written as JSON");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}
