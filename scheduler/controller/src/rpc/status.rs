//! Refusals on the wire: our sentence, Slurm's number and Slurm's text, which tools match on.

use bytes::Bytes;
use muster_core::rejection::Rejection;
use muster_proto::convert::BadField;
use muster_proto::{ERROR_TRAILER, v1};
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::engine::EngineError;

/// Slurm's text of an error number.
#[must_use]
pub fn slurm_text(errno: u32) -> &'static str {
    match errno {
        2000 => "Invalid partition name specified",
        2001 => "No partition specified or system default partition",
        2002 => "Access/permission denied",
        2003 => "User's group not permitted to use this partition",
        2004 => "Requested nodes not in this partition",
        2006 => "Node count specification invalid",
        2007 => "MaxJobCount limit reached",
        2009 => "Job script not specified",
        2010 => "Invalid user id",
        2012 => "Pathname of a file, directory or other parameter too long",
        2014 => "Requested node configuration is not available",
        2016 => "Requested nodes are busy",
        2017 => "Invalid job id specified",
        2018 => "Invalid node name specified",
        2020 => "Job can not be altered now, try again later",
        2021 => "Job/step already completing or completed",
        2028 => "Invalid node state specified",
        2029 => "Invalid feature specification",
        2037 => "Requested operation is presently disabled",
        2038 => "Job dependency problem",
        2044 => "Memory required by task is not available",
        2048 => "Invalid license specification",
        2051 => "Requested time limit is invalid (missing or exceeds some limit)",
        2052 => "Access denied to requested reservation",
        2053 => "Requested reservation is invalid",
        2054 => "Invalid time value",
        2055 => "Requested reservation is in use",
        2058 => "Requested reservation overlaps with another reservation",
        2069 => "CPU count specification invalid",
        2070 => "Required partition not available (inactive or drain)",
        2071 => "Circular job dependency",
        2072 => "Invalid generic resource (gres) specification",
        2073 => "Job is no longer pending execution",
        2077 => "Job is currently suspended",
        2081 => "Invalid job array specification",
        2082 => "Duplicate reservation name",
        2085 => "Job is not running",
        2087 => "Job is not suspended",
        _ => "",
    }
}

/// The wire form of a refusal.
#[must_use]
pub fn detail(refusal: &Rejection) -> v1::ErrorDetail {
    let (errno, _) = numbers(refusal);
    make_detail(errno, refusal.to_string())
}

/// A refused call.
#[must_use]
pub fn refused(refusal: &Rejection) -> Status {
    status(numbers(refusal).1, detail(refusal))
}

/// A field of the message that makes no sense.
#[must_use]
pub fn bad_field(bad: &BadField) -> v1::ErrorDetail {
    let errno = match bad.field {
        "array" => 2081,
        "dependency" => 2038,
        "constraint" => 2029,
        "gres" => 2072,
        "node count" => 2006,
        "node list" | "hostlist" => 2018,
        "partition" => 2000,
        "reservation" | "flags" | "users" | "accounts" => 2053,
        "licenses" => 2048,
        "job name" | "working directory" | "script arguments" | "script" | "environment" => 2012,
        _ => 0,
    };
    make_detail(errno, bad.to_string())
}

/// A call refused for one of its fields.
#[must_use]
pub fn invalid(bad: &BadField) -> Status {
    status(Code::InvalidArgument, bad_field(bad))
}

/// A job number that nobody knows (or that is not the caller's to see).
#[must_use]
pub fn unknown_job(job: u32) -> Status {
    refused(&Rejection::UnknownJob(muster_model::JobId(job)))
}

/// What only others may do.
#[must_use]
pub fn not_permitted(what: &str) -> Status {
    refused(&Rejection::NotPermitted { what: what.to_owned() })
}

/// A sentence with Slurm's number.
#[must_use]
pub fn make_detail(errno: u32, message: String) -> v1::ErrorDetail {
    v1::ErrorDetail { slurm_errno: errno, slurm_text: slurm_text(errno).to_owned(), message }
}

/// A gRPC status that carries the detail in its trailer.
#[must_use]
pub fn status(code: Code, detail: v1::ErrorDetail) -> Status {
    let mut trailer = MetadataMap::new();
    let bytes = MetadataValue::from_bytes(&detail.encode_to_vec());
    trailer.insert_bin(ERROR_TRAILER, bytes);
    Status::with_details_and_metadata(code, detail.message, Bytes::new(), trailer)
}

/// What a call that the engine did not grant comes to.
#[must_use]
pub fn fault_detail(fault: &EngineError) -> v1::ErrorDetail {
    match fault {
        EngineError::Rejected(refusal) => detail(refusal),
        EngineError::Busy | EngineError::Stopped => make_detail(0, fault.to_string()),
    }
}

impl From<EngineError> for Status {
    fn from(fault: EngineError) -> Self {
        match &fault {
            EngineError::Rejected(refusal) => refused(refusal),
            EngineError::Busy => status(Code::ResourceExhausted, fault_detail(&fault)),
            EngineError::Stopped => status(Code::Unavailable, fault_detail(&fault)),
        }
    }
}

fn numbers(refusal: &Rejection) -> (u32, Code) {
    use Rejection as R;
    match refusal {
        R::UnknownJob(_) | R::UnknownTask(..) => (2017, Code::NotFound),
        R::AlreadyEnded(_) => (2021, Code::FailedPrecondition),
        R::NotPending(_) => (2073, Code::FailedPrecondition),
        R::NotRunning(_) => (2085, Code::FailedPrecondition),
        R::NotSuspended(_) => (2087, Code::FailedPrecondition),
        R::Suspended(_) => (2077, Code::FailedPrecondition),
        R::RequeueDisabled(_) => (2037, Code::FailedPrecondition),
        R::NotPermitted { .. } => (2002, Code::PermissionDenied),
        R::UnknownPartition(_) => (2000, Code::InvalidArgument),
        R::NoDefaultPartition => (2001, Code::InvalidArgument),
        R::PartitionAccess { .. } => (2003, Code::PermissionDenied),
        R::PartitionClosed { .. } => (2070, Code::FailedPrecondition),
        R::UnknownNode(_) => (2018, Code::InvalidArgument),
        R::NodeNotInPartition { .. } => (2004, Code::InvalidArgument),
        R::UnknownFeature(_) => (2029, Code::InvalidArgument),
        R::UnknownGres(_) => (2072, Code::InvalidArgument),
        R::UnknownLicense(_) => (2048, Code::InvalidArgument),
        R::UnknownReservation(_) => (2053, Code::NotFound),
        R::BadReservation(_) => (2053, Code::InvalidArgument),
        R::BadReservationTime(_) => (2054, Code::InvalidArgument),
        R::ReservationAccess { .. } => (2052, Code::PermissionDenied),
        R::ReservationExists(_) => (2082, Code::AlreadyExists),
        R::ReservationInUse { .. } => (2055, Code::FailedPrecondition),
        R::ReservationOverlap { .. } => (2058, Code::FailedPrecondition),
        R::NodesBusy(_) | R::Reserved { .. } => (2016, Code::FailedPrecondition),
        R::UnknownDependency(_) | R::DependencyOnItself(_) | R::DependencyNeverHolds { .. } => {
            (2038, Code::InvalidArgument)
        }
        R::DependencyLoop(_) => (2071, Code::InvalidArgument),
        R::BadNodeCount(_) => (2006, Code::InvalidArgument),
        R::BadCpuCount(_) => (2069, Code::InvalidArgument),
        R::BadMemory(_) => (2044, Code::InvalidArgument),
        R::NeverFits { .. } => (2014, Code::InvalidArgument),
        R::BadTimeLimit(_) => (2051, Code::InvalidArgument),
        R::BadDeadline(_) => (2054, Code::InvalidArgument),
        R::BadArray(_) => (2081, Code::InvalidArgument),
        R::QueueFull { .. } => (2007, Code::ResourceExhausted),
        R::RootNotAdmitted => (2010, Code::PermissionDenied),
        R::BadValue(_) => (0, Code::InvalidArgument),
        R::ReasonNeeded(_) => (2028, Code::InvalidArgument),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_slurms_number_and_text() {
        let status = refused(&Rejection::UnknownPartition("x".into()));
        let bytes = status.metadata().get_bin(ERROR_TRAILER).unwrap().to_bytes().unwrap();
        let detail = v1::ErrorDetail::decode(bytes).unwrap();
        assert_eq!(detail.slurm_errno, 2000);
        assert_eq!(detail.slurm_text, "Invalid partition name specified");
        assert_eq!(detail.message, "partition \"x\" does not exist");
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}
