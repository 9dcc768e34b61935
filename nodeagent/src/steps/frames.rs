//! Speech with a step's shim: length (four bytes, little end first) and message. What comes out is
//! passed on as it is.

use bytes::BytesMut;
use muster_proto::v1::{StepInput, StepOutput};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// More in one message is a fault.
const MAX_MESSAGE: usize = 32 << 20;

/// Writes one message.
pub(super) async fn write(to: &mut OwnedWriteHalf, message: &StepInput) -> std::io::Result<()> {
    let length = message.encoded_len();
    let mut frame = Vec::with_capacity(length + 4);
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    message.encode(&mut frame).expect("a Vec has room");
    to.write_all(&frame).await
}

/// Reads messages one after another.
#[derive(Debug)]
pub(super) struct Reader {
    from: OwnedReadHalf,
    pending: BytesMut,
}

impl Reader {
    pub(super) fn new(from: OwnedReadHalf) -> Reader {
        Reader { from, pending: BytesMut::with_capacity(64 * 1024) }
    }

    /// The next; `None` at the end.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<StepOutput>> {
        loop {
            if let Some(head) = self.pending.get(..4) {
                let length = u32::from_le_bytes(head.try_into().expect("four bytes")) as usize;
                if length > MAX_MESSAGE {
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
                if self.pending.len() >= length + 4 {
                    let _ = self.pending.split_to(4);
                    let body = self.pending.split_to(length).freeze();
                    let message = StepOutput::decode(body).map_err(std::io::Error::other)?;
                    return Ok(Some(message));
                }
                self.pending.reserve(length + 4 - self.pending.len());
            }
            if self.from.read_buf(&mut self.pending).await? == 0 {
                return Ok(None);
            }
        }
    }
}
