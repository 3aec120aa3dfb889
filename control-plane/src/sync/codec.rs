//! The gRPC methods by hand, for the sake of the stream's codec: frames carry objects that are encoded already, which the
//! generated server would decode and encode again for every stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use gateway_proto::wire;
use prost::Message as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::server::Streams;
use crate::publish::encode::Frame;

const STREAM: &str = "/gateway.v1.Sync/Stream";
const ENROLL: &str = "/gateway.v1.Sync/Enroll";
/// Largest message taken from a data plane, in bytes: the names and hashes of everything that it refuses, about 100
/// bytes each, more with long names. One that refuses all of its configuration must be able to say so.
const MAX_MESSAGE: usize = 64 << 20;
/// Largest message taken from somebody who is nobody yet, in bytes.
const MAX_ENROLL: usize = 32 << 10;

/// Messages in, frames out.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = Frame;
    type Decode = wire::DataPlaneMessage;
    type Encoder = FrameCodec;
    type Decoder = FrameCodec;

    fn encoder(&mut self) -> FrameCodec {
        FrameCodec
    }

    fn decoder(&mut self) -> FrameCodec {
        FrameCodec
    }
}

impl Encoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame.encode(into).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for FrameCodec {
    type Item = wire::DataPlaneMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        wire::DataPlaneMessage::decode(from)
            .map(Some)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

/// The `gateway.v1.Sync` service.
#[derive(Clone, Debug)]
pub struct SyncService(pub Arc<Streams>);

impl tonic::server::NamedService for SyncService {
    const NAME: &'static str = "gateway.v1.Sync";
}

impl tonic::server::StreamingService<wire::DataPlaneMessage> for SyncService {
    type Response = Frame;
    type ResponseStream = ReceiverStream<Result<Frame, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<wire::DataPlaneMessage>>) -> Self::Future {
        let streams = Arc::clone(&self.0);
        Box::pin(async move { streams.open(request).map(Response::new) })
    }
}

impl tonic::server::UnaryService<wire::EnrollRequest> for SyncService {
    type Response = wire::IssuedCertificate;
    type Future = BoxFuture<'static, Result<Response<wire::IssuedCertificate>, Status>>;

    fn call(&mut self, request: Request<wire::EnrollRequest>) -> Self::Future {
        let streams = Arc::clone(&self.0);
        Box::pin(async move { streams.enroll(request).await.map(Response::new) })
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for SyncService {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            match request.uri().path() {
                STREAM => {
                    let mut grpc =
                        tonic::server::Grpc::new(FrameCodec).max_decoding_message_size(MAX_MESSAGE);
                    Ok(grpc.streaming(service, request).await)
                }
                ENROLL => {
                    let codec = ProstCodec::<wire::IssuedCertificate, wire::EnrollRequest>::default();
                    let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(MAX_ENROLL);
                    Ok(grpc.unary(service, request).await)
                }
                _ => Ok(Status::unimplemented("the methods are Stream and Enroll").into_http()),
            }
        })
    }
}
