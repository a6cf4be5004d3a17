//! How Outlive says no: the contract's error codes, and a refusal that carries one.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a request was refused (contract, section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    InvalidRequest,
    InvalidArgument,
    NotFound,
    InUse,
    ConcurrentModification,
    LimitExceeded,
    Unsupported,
    Unauthorized,
    Unavailable,
    Timeout,
    /// A fault of ours; what happened is in the scheduler's log.
    Internal,
}

impl ErrorCode {
    pub const ALL: [ErrorCode; 11] = [
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidArgument,
        ErrorCode::NotFound,
        ErrorCode::InUse,
        ErrorCode::ConcurrentModification,
        ErrorCode::LimitExceeded,
        ErrorCode::Unsupported,
        ErrorCode::Unauthorized,
        ErrorCode::Unavailable,
        ErrorCode::Timeout,
        ErrorCode::Internal,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::InvalidRequest => "invalid_request",
            ErrorCode::InvalidArgument => "invalid_argument",
            ErrorCode::NotFound => "not_found",
            ErrorCode::InUse => "in_use",
            ErrorCode::ConcurrentModification => "concurrent_modification",
            ErrorCode::LimitExceeded => "limit_exceeded",
            ErrorCode::Unsupported => "unsupported",
            ErrorCode::Unauthorized => "unauthorized",
            ErrorCode::Unavailable => "unavailable",
            ErrorCode::Timeout => "timeout",
            ErrorCode::Internal => "internal",
        }
    }

    /// The number in the `Nats-Service-Error-Code` header, after HTTP's.
    pub fn status(self) -> u16 {
        match self {
            ErrorCode::InvalidRequest | ErrorCode::InvalidArgument | ErrorCode::Unsupported => 400,
            ErrorCode::Unauthorized => 403,
            ErrorCode::NotFound => 404,
            ErrorCode::Timeout => 408,
            ErrorCode::InUse | ErrorCode::ConcurrentModification => 409,
            ErrorCode::LimitExceeded => 429,
            ErrorCode::Internal => 500,
            ErrorCode::Unavailable => 503,
        }
    }
}

/// A refusal: nothing was changed. The message says what was wrong, with what value, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    pub code: ErrorCode,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

impl Rejection {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Rejection {
        Rejection { code, message: message.into(), details: None }
    }

    pub fn not_found(what: impl fmt::Display) -> Rejection {
        Rejection::new(ErrorCode::NotFound, format!("there is no {what}"))
    }

    pub fn unavailable(why: impl fmt::Display) -> Rejection {
        Rejection::new(ErrorCode::Unavailable, format!("{why}; it is safe to send the request again"))
    }
}

/// The body of an error reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    pub error: Rejection,
}
