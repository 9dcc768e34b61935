//! The calls, and who may make them.

use std::pin::Pin;

use futures::Stream;
use muster_proto::v1::steps_server::Steps as Calls;
use muster_proto::v1::{
    CloseStepReply, CloseStepRequest, DescribeReply, DescribeRequest, FiguresReply, FiguresRequest,
    ListStepsReply, ListStepsRequest, OpenStepRequest, PartFigures, ReleaseReply, ReleaseRequest,
    SignalStepReply, SignalStepRequest, StepInput, StepNews, StepOutput, Usage,
};
use muster_shim::{BATCH_GROUP, ShimClient, SliceDir, StepDir};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Steps;
use super::head::{about, missing};
use super::part::{UNDER_WAY, admit};
use super::slice::Slice;
use crate::jobs::edge::{Edge, chain};

impl Steps {
    async fn of(&self, job: u32, uid: u32) -> Result<Slice, Status> {
        let node = &self.0.edge.node;
        let slice = self.find(job, None).await.map_err(|why| missing(node, job, &why))?;
        admit(&slice, uid)?;
        Ok(slice)
    }
}

/// What the batch script and each step use here now.
fn figures(edge: &Edge, slice: &Slice) -> Vec<PartFigures> {
    let key = slice.key;
    let mut parts = Vec::new();
    let dir = SliceDir::of(&edge.spool, key.job, key.attempt);
    if slice.launch.batch
        && let Ok(reply) = ShimClient::connect(&dir).and_then(|mut shim| shim.status())
    {
        let usage = reply.usage.map(|usage| Usage { gpu: edge.gpus.usage(key), ..usage });
        let pids = vec![reply.batch_pid];
        parts.push(PartFigures { step: BATCH_GROUP.to_owned(), usage, tasks: None, pids });
    }
    for (job, attempt, _, dir) in StepDir::list(&edge.spool) {
        if (job, attempt) == (key.job, key.attempt) {
            parts.extend(dir.figures());
        }
    }
    parts
}

#[tonic::async_trait]
impl Calls for Steps {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<StepNews, Status>> + Send>>;
    type RunStream = ReceiverStream<Result<StepOutput, Status>>;

    async fn open(
        &self,
        request: Request<OpenStepRequest>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let uid = self.0.callers.uid(&request)?;
        let request = request.into_inner();
        let slice = self.of(request.job, uid).await?;
        let asker = self.0.head.open(&slice, request, uid)?;
        Ok(Response::new(Box::pin(asker)))
    }

    async fn close(
        &self,
        request: Request<CloseStepRequest>,
    ) -> Result<Response<CloseStepReply>, Status> {
        let uid = self.0.callers.uid(&request)?;
        let request = request.into_inner();
        let slice = self.of(request.job, uid).await?;
        self.0.head.close(&slice, &request);
        Ok(Response::new(CloseStepReply {}))
    }

    async fn list(
        &self,
        request: Request<ListStepsRequest>,
    ) -> Result<Response<ListStepsReply>, Status> {
        let uid = self.0.callers.uid(&request)?;
        let request = request.into_inner();
        let slice = self.of(request.job, uid).await?;
        let steps = self.0.head.list(&slice, request.ended);
        Ok(Response::new(ListStepsReply { steps }))
    }

    async fn signal(
        &self,
        request: Request<SignalStepRequest>,
    ) -> Result<Response<SignalStepReply>, Status> {
        let uid = self.0.callers.uid(&request)?;
        let request = request.into_inner();
        let slice = self.of(request.job, uid).await?;
        match self.0.head.signal(&slice, request.step, request.signal) {
            true => Ok(Response::new(SignalStepReply {})),
            false => Err(Status::not_found(format!(
                "step {}.{} does not run, or its srun is away",
                request.job, request.step
            ))),
        }
    }

    async fn figures(
        &self,
        request: Request<FiguresRequest>,
    ) -> Result<Response<FiguresReply>, Status> {
        let uid = self.0.callers.uid(&request)?;
        let slice = self.of(request.into_inner().job, uid).await?;
        let edge = self.0.edge.clone();
        let asked = tokio::task::spawn_blocking(move || figures(&edge, &slice));
        let parts = asked.await.expect("a look at a job does not panic");
        Ok(Response::new(FiguresReply { parts }))
    }

    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeReply>, Status> {
        let uid = self.0.callers.uid(&request)?;
        let slice = self.of(request.into_inner().job, uid).await?;
        Ok(Response::new(about(&slice)))
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseReply>, Status> {
        let uid = self.0.callers.uid(&request)?;
        let request = request.into_inner();
        let slice = self.of(request.job, uid).await?;
        let spool = self.0.edge.spool.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let dir = SliceDir::of(&spool, slice.key.job, slice.key.attempt);
            ShimClient::connect(&dir)?.release(request.code)
        });
        match asked.await.expect("a question to a shim does not panic") {
            Ok(_) => Ok(Response::new(ReleaseReply {})),
            Err(fault) => Err(Status::unavailable(chain(&fault))),
        }
    }

    async fn run(
        &self,
        request: Request<Streaming<StepInput>>,
    ) -> Result<Response<Self::RunStream>, Status> {
        let uid = self.0.callers.uid(&request)?;
        let mut asked = request.into_inner();
        let (out, answers) = mpsc::channel(UNDER_WAY);
        let steps = self.clone();
        tokio::spawn(async move {
            let served = match asked.message().await {
                Ok(Some(first)) => steps.serve(uid, first, asked, out.clone()).await,
                Ok(None) => Ok(()),
                Err(status) => Err(status),
            };
            if let Err(status) = served {
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}
