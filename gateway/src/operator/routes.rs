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

/// What the port shows.
pub struct Operator {
    /// For `/metrics`.
    pub metrics: Metrics,
    /// For `/health/*`.
    pub health: HealthSources,
}

/// Where the port's pages are. A path is one that [`crate::http::site::check_prefix`] accepts, and the page of
/// metrics is none of the three below `health`: axum panics over others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The page of metrics; `None`: it is not served.
    pub metrics: Option<String>,
    /// What `/live`, `/ready` and `/startup` stand below; `None`: they are not served.
    pub health: Option<String>,
}

/// What a probe asks.
type Question = fn(&HealthSources) -> Report;

/// The port's routes. It has no key: it belongs on an address that only operators reach.
pub fn router(operator: Arc<Operator>, paths: &Paths) -> Router {
    let mut router = Router::new();
    let mut served = Vec::new();
    if let Some(path) = &paths.metrics {
        router = router.route(path, get(metrics));
        served.push(path.clone());
    }
    if let Some(prefix) = &paths.health {
        let questions: [(&str, Question); 3] =
            [("live", HealthSources::live), ("ready", HealthSources::ready), ("startup", HealthSources::startup)];
        for (name, ask) in questions {
            let path = format!("{prefix}/{name}");
            let page = move |State(operator): State<Arc<Operator>>| async move { report(ask(&operator.health)) };
            router = router.route(&path, get(page));
            served.push(path);
        }
    }
    let hint: Arc<str> = match served.is_empty() {
        true => "prometheus.enabled and health.enabled are both off".into(),
        false => format!("see {}", served.join(", ")).into(),
    };
    router.fallback(move |uri: Uri| async move { reply::not_found(&uri, &hint) }).with_state(operator)
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
            reloads: Arc::default(),
        });
        let health = HealthSources {
            lifecycle: lifecycle.clone(),
            turn_ages: Box::new(|| vec![Duration::ZERO]),
            max_turn_age: Duration::from_secs(5),
            pressure: Arc::default(),
            broker: broker.clone(),
        };
        let paths = Paths { metrics: Some("/metrics".into()), health: Some("/health".into()) };
        (broker, lifecycle, router(Arc::new(Operator { metrics, health }), &paths))
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
