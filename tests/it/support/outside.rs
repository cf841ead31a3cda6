//! A stand-in for the service that an HTTP authenticator asks.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

/// How it answers.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// With this status and body.
    Says(u16, String),
    /// Never.
    Silent,
}

/// What it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// The stand-in. It ends when it is dropped, and takes no more connections then.
pub(crate) struct Outside {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    manner: Mutex<Manner>,
    asked: Mutex<Vec<Asked>>,
}

impl Outside {
    /// Serves whatever is asked for, in this manner.
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared { manner: Mutex::new(manner), asked: Mutex::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("serve") });
        Self { address, shared, task }
    }

    /// One that says JSON.
    pub(crate) async fn saying(body: &serde_json::Value) -> Self {
        Self::start(Manner::Says(200, body.to_string())).await
    }

    /// Changes how it answers from now on.
    pub(crate) fn be(&self, manner: Manner) {
        *self.shared.manner.lock() = manner;
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().clone()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body = String::from_utf8(body.to_vec()).expect("text");
    shared.asked.lock().push(Asked { method, uri: uri.to_string(), headers, body });
    let manner = shared.manner.lock().clone();
    match manner {
        Manner::Says(status, body) => (StatusCode::from_u16(status).expect("a status"), body).into_response(),
        Manner::Silent => std::future::pending().await,
    }
}
