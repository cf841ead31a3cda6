//! What callers and connections may do: how often, and how slowly.

use std::num::NonZeroU32;
use std::time::Duration;

use holdfast::control_plane::http::server::{self, Limits};
use holdfast::control_plane::tokens::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::support::PATIENCE;
use super::support::api::{Answer, Api};

/// An API that takes a request a second of each caller, and what it answered the administrator in haste.
pub(crate) async fn refused_for_haste() -> (Api, Answer) {
    let api = Api::start_with(|state| state.limited_to(NonZeroU32::new(1))).await;
    loop {
        // Two at once are free; a request a second is far below what is asked for here.
        let answer = api.admin().get("/v1/plans").await;
        if answer.status == 429 {
            answer.expect_problem("rate_limited");
            return (api, answer);
        }
    }
}

#[tokio::test]
async fn a_caller_that_asks_too_often_is_told_to_wait() {
    let (api, refused) = refused_for_haste().await;
    assert_eq!(refused.header("retry-after"), "1");
    // Another caller is not kept waiting, and nobody without a token is told more than that it needs one.
    api.with_token(&api.token(Role::Viewer, Some("c"))).get("/v1/plans").await.expect(200);
    api.anonymous().get("/v1/plans").await.expect_problem("token_missing");
    api.anonymous().get("/livez").await.expect(200);
}

async fn served(limits: Limits) -> (std::net::SocketAddr, CancellationToken) {
    let api = Api::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let (router, ends) = (api.router.clone(), stop.clone());
    tokio::spawn(async move {
        server::serve(listener, router, limits, ends).await.expect("serve");
        drop(api);
    });
    (address, stop)
}

/// What comes until the connection ends.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end in time");
    read.expect("an end");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_connection_that_sends_its_request_too_slowly_is_closed() {
    let limits = Limits { head_time_max: Duration::from_millis(100), ..Limits::default() };
    let (address, _stop) = served(limits).await;
    let mut silent = TcpStream::connect(address).await.expect("connected");
    assert_eq!(rest(&mut silent).await, "");
    let mut slow = TcpStream::connect(address).await.expect("connected");
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n").await.expect("sent");
    let answer = rest(&mut slow).await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let (address, _stop) = served(Limits::default()).await;
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(1_000_000));
    // It may stop reading before all of it is sent.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut first = [0; 64];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut first)).await.expect("in time");
    let told = String::from_utf8_lossy(&first[..read.unwrap_or(0)]).into_owned();
    assert!(told.is_empty() || told.contains(" 431 "), "{told}");
}

#[tokio::test]
async fn connections_above_the_bound_wait_until_one_ends() {
    let (address, _stop) = served(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = TcpStream::connect(address).await.expect("connected");
    first.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut head = [0; 12];
    first.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200");
    let mut second = TcpStream::connect(address).await.expect("connected");
    second.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
    drop(first);
    assert!(rest(&mut second).await.starts_with("HTTP/1.1 200"));
}
