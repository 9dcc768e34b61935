//! What happened since the start, in numbers: passes and calls. Those of jobs are the engine's.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use muster_proto::v1;
use tonic::codegen::http;
use tower::{Layer, Service};

/// Counters of passes and calls. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    inner: Arc<Mutex<Inner>>,
    /// Calls whose answer has not begun.
    under_way: Arc<AtomicU32>,
}

#[derive(Debug, Default)]
struct Inner {
    passes: Passes,
    /// By method: how often, and how long in all.
    calls: BTreeMap<Box<str>, (u64, Duration)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Passes {
    count: u64,
    last: Duration,
    longest: Duration,
    total: Duration,
    /// Jobs that were copied to be considered, in the last pass and in all.
    last_heads: u64,
    heads: u64,
}

impl Counts {
    /// A pass is over that considered so many jobs.
    pub fn passed(&self, took: Duration, heads: u64) {
        let passes = &mut self.inner.lock().expect("counting does not panic").passes;
        passes.count += 1;
        passes.last = took;
        passes.longest = passes.longest.max(took);
        passes.total += took;
        passes.last_heads = heads;
        passes.heads += heads;
    }

    /// A call of the method with this path was answered; of a stream: its head.
    fn called(&self, path: &str, took: Duration) {
        let method = path.rsplit('/').next().unwrap_or_default();
        let calls = &mut self.inner.lock().expect("counting does not panic").calls;
        match calls.get_mut(method) {
            Some((count, total)) => (*count, *total) = (*count + 1, *total + took),
            None => _ = calls.insert(method.into(), (1, took)),
        }
    }

    /// Fills in what is counted here.
    pub fn tell(&self, reply: &mut v1::DiagReply) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let inner = self.inner.lock().expect("counting does not panic");
        let Passes { count, last, longest, total, last_heads, heads } = inner.passes;
        (reply.passes, reply.pass_last_us, reply.pass_max_us) = (count, us(last), us(longest));
        (reply.pass_total_us, reply.last_considered) = (us(total), last_heads);
        reply.considered = heads;
        reply.threads = self.under_way.load(Relaxed);
        let calls = inner.calls.iter();
        let call = calls.map(|(method, (count, total))| v1::CallCount {
            method: method.to_string(),
            count: *count,
            total_us: us(*total),
        });
        reply.calls = call.collect();
    }
}

/// Counts a call as under way while it lives.
struct UnderWay(Counts);

impl UnderWay {
    fn new(counts: Counts) -> Self {
        counts.under_way.fetch_add(1, Relaxed);
        UnderWay(counts)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

impl<S> Layer<S> for Counts {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, counts: self.clone() }
    }
}

/// A service whose calls are counted. Paths that no service has would fill the table: they are
/// answered with 404 or UNIMPLEMENTED, and only what is served is kept.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    counts: Counts,
}

impl<S, B, R> Service<http::Request<B>> for Counted<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (path, began) = (request.uri().path().to_owned(), Instant::now());
        let under_way = UnderWay::new(self.counts.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let unknown = |response: &http::Response<R>| {
                let code = response.headers().get("grpc-status");
                !response.status().is_success() || code.is_some_and(|code| code == "12")
            };
            if !answer.as_ref().is_ok_and(unknown) {
                under_way.0.called(&path, began.elapsed());
            }
            answer
        })
    }
}
