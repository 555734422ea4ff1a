//! The operators' port.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::health::{HealthSources, Report, Status};
use super::tree::Metrics;
use crate::http::reply;

const PATHS: &str = "see /metrics, /health/live, /health/ready, /health/startup";

/// What the port shows.
pub struct Operator {
    /// For `/metrics`.
    pub metrics: Metrics,
    /// For `/health/*`.
    pub health: HealthSources,
}

/// The port's routes. It has no key: it belongs on an address that only operators reach.
pub fn router(operator: Arc<Operator>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route(
            "/health/live",
            get(|State(operator): State<Arc<Operator>>| async move { report(operator.health.live()) }),
        )
        .route(
            "/health/ready",
            get(|State(operator): State<Arc<Operator>>| async move { report(operator.health.ready()) }),
        )
        .route(
            "/health/startup",
            get(|State(operator): State<Arc<Operator>>| async move { report(operator.health.startup()) }),
        )
        .fallback(|uri: Uri| async move { reply::not_found(&uri, PATHS) })
        .with_state(operator)
}

async fn metrics(State(operator): State<Arc<Operator>>) -> Response {
    // Reading /proc may take its time.
    match tokio::task::spawn_blocking(move || operator.metrics.render()).await {
        Ok(page) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics page could not be made");
            reply::text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics page could not be made; the log says why")
        }
    }
}

/// 200, or 503 where the answer is no; the checks are in the body either way.
fn report(report: Report) -> Response {
    let status = match report.status {
        Status::Ok | Status::Degraded => StatusCode::OK,
        Status::Failed => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(report)).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::api::tests::Notebook;
    use crate::operator::{Lifecycle, Sources};
    use crate::shard::stats::ShardStats;

    fn operator() -> (Arc<Notebook>, Arc<Lifecycle>, Router) {
        let (broker, lifecycle) = (Arc::new(Notebook::default()), Arc::new(Lifecycle::default()));
        let metrics = Metrics::new(Sources {
            shards: Arc::from(vec![Arc::new(ShardStats::default())]),
            admission: Arc::default(),
            pressure: Arc::default(),
            api: Arc::default(),
            broker: broker.clone(),
        });
        let health = HealthSources {
            lifecycle: lifecycle.clone(),
            turn_ages: Box::new(|| vec![Duration::ZERO]),
            max_turn_age: Duration::from_secs(5),
            pressure: Arc::default(),
            broker: broker.clone(),
        };
        (broker, lifecycle, router(Arc::new(Operator { metrics, health })))
    }

    async fn get(router: &Router, path: &str) -> (StatusCode, String) {
        let response = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn health_answers_503_until_the_start_is_done_and_lists_each_check() {
        let (broker, lifecycle, router) = operator();
        assert_eq!(get(&router, "/health/live").await.0, StatusCode::OK);
        for path in ["/health/ready", "/health/startup"] {
            assert_eq!(get(&router, path).await.0, StatusCode::SERVICE_UNAVAILABLE);
        }
        lifecycle.set_started();
        broker.away.store(true, Relaxed);
        let (status, body) = get(&router, "/health/ready").await;
        assert_eq!(status, StatusCode::OK);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["status"], "degraded");
        let names: Vec<_> = body["checks"].as_array().unwrap().iter().map(|check| &check["name"]).collect();
        assert_eq!(names, ["started", "draining", "memory", "shards", "broker"]);
        assert_eq!(body["checks"][4]["status"], "degraded");
    }

    #[tokio::test]
    async fn metrics_are_served_and_other_paths_say_what_there_is() {
        let (_, _, router) = operator();
        let (status, body) = get(&router, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("\ntidegate_build_info{version="), "{body}");
        let (status, body) = get(&router, "/nonsense").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.contains("/nonsense") && body.contains("/health/ready"), "{body}");
    }
}
