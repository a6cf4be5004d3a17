//! What the log's stream must be, and what makes one unsafe.

use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, Republish, RetentionPolicy, StorageType};
use outlive_schemas::limits::COMMIT_SEALED_BYTES_MAX;
use outlive_schemas::subject;
use std::fmt;
use std::time::Duration;

/// The server counts headers into a message's size: the expected sequence and the id take less than this.
const HEADERS_BYTES_MAX: usize = 1_024;
/// How long the server remembers message ids. It only saves a read; the fence does not depend on it.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The stream as Outlive creates it; `max_bytes` of -1 means no limit.
pub fn stream_config(replicas: usize, max_bytes: i64) -> Config {
    Config {
        name: subject::LOG_STREAM.to_owned(),
        description: Some("Outlive: the log. Everything Outlive knows follows from it.".to_owned()),
        subjects: vec![subject::LOG_SUBJECT.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: replicas,
        max_bytes,
        max_message_size: (COMMIT_SEALED_BYTES_MAX + HEADERS_BYTES_MAX) as i32,
        discard: DiscardPolicy::New,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        allow_rollup: false,
        deny_delete: true,
        // The log is let go of from the front.
        deny_purge: false,
        republish: Some(Republish {
            source: subject::LOG_SUBJECT.to_owned(),
            destination: subject::LOG_TAIL_SUBJECT.to_owned(),
            headers_only: false,
        }),
        ..Config::default()
    }
}

/// One setting that could lose or forge commits, or keep them from being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsafe {
    pub setting: &'static str,
    pub is: String,
    pub must_be: String,
}

/// The stream is not one to put a log into.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the stream {} is unsafe for the log: {}; change it with `nats stream edit`",
    subject::LOG_STREAM,
    Settings(settings)
)]
pub struct UnsafeStream {
    pub settings: Vec<Unsafe>,
}

struct Settings<'a>(&'a [Unsafe]);

impl fmt::Display for Settings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Unsafe { setting, is, must_be }) in self.0.iter().enumerate() {
            write!(f, "{}{setting} is {is} and must be {must_be}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// Names every setting of an existing stream under which the log would not be safe.
///
/// Replicas, placement and `max_bytes` are the operator's choice.
pub fn check_stream(config: &Config) -> Result<(), UnsafeStream> {
    let right = stream_config(config.num_replicas, config.max_bytes);
    let mut settings = Vec::new();
    let mut check = |setting, safe: bool, is: String, must_be: &str| {
        if !safe {
            settings.push(Unsafe { setting, is, must_be: must_be.to_owned() });
        }
    };
    check("subjects", config.subjects == right.subjects, format!("{:?}", config.subjects), subject::LOG_SUBJECT);
    check("retention", config.retention == right.retention, format!("{:?}", config.retention), "limits");
    check("storage", config.storage == right.storage, format!("{:?}", config.storage), "file");
    check("discard", config.discard == right.discard, format!("{:?}", config.discard), "new");
    check("max_msgs", config.max_messages <= 0, config.max_messages.to_string(), "-1 (no limit)");
    let per_subject = config.max_messages_per_subject;
    check("max_msgs_per_subject", per_subject <= 0, per_subject.to_string(), "-1 (no limit)");
    check("max_age", config.max_age.is_zero(), format!("{:?}", config.max_age), "0 (no limit)");
    check(
        "max_msg_size",
        config.max_message_size <= 0 || config.max_message_size >= right.max_message_size,
        config.max_message_size.to_string(),
        &format!("at least {}", right.max_message_size),
    );
    check("no_ack", !config.no_ack, config.no_ack.to_string(), "false");
    check("sealed", !config.sealed, config.sealed.to_string(), "false");
    check("allow_rollup_hdrs", !config.allow_rollup, config.allow_rollup.to_string(), "false");
    check("deny_delete", config.deny_delete, config.deny_delete.to_string(), "true");
    check("deny_purge", !config.deny_purge, config.deny_purge.to_string(), "false");
    check("allow_direct", config.allow_direct, config.allow_direct.to_string(), "true");
    check("allow_msg_ttl", !config.allow_message_ttl, config.allow_message_ttl.to_string(), "false");
    check("allow_msg_counter", !config.allow_message_counter, config.allow_message_counter.to_string(), "false");
    check("allow_msg_schedules", !config.allow_message_schedules, config.allow_message_schedules.to_string(), "false");
    check(
        "persist_mode",
        config.persist_mode != Some(PersistenceMode::Async),
        format!("{:?}", config.persist_mode),
        "default",
    );
    check("mirror", config.mirror.is_none(), "set".to_owned(), "unset");
    check("sources", config.sources.as_ref().is_none_or(Vec::is_empty), "set".to_owned(), "unset");
    check("subject_transform", config.subject_transform.is_none(), "set".to_owned(), "unset");
    check(
        "republish",
        config.republish == right.republish,
        config.republish.as_ref().map_or("unset".to_owned(), |it| format!("{} to {}", it.source, it.destination)),
        &format!("{} to {}, with bodies", subject::LOG_SUBJECT, subject::LOG_TAIL_SUBJECT),
    );
    if settings.is_empty() { Ok(()) } else { Err(UnsafeStream { settings }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsafe_settings(change: impl Fn(&mut Config)) -> Vec<&'static str> {
        let mut config = stream_config(3, 1 << 40);
        change(&mut config);
        let refused = check_stream(&config).expect_err("unsafe");
        refused.settings.iter().map(|setting| setting.setting).collect()
    }

    #[test]
    fn our_own_is_safe_with_any_replicas_and_size() {
        assert_eq!(check_stream(&stream_config(1, -1)), Ok(()));
        assert_eq!(check_stream(&stream_config(5, 1 << 40)), Ok(()));
    }

    #[test]
    fn each_unsafe_setting_is_named() {
        assert_eq!(unsafe_settings(|c| c.subjects.push("outlive.>".to_owned())), ["subjects"]);
        assert_eq!(unsafe_settings(|c| c.retention = RetentionPolicy::WorkQueue), ["retention"]);
        assert_eq!(unsafe_settings(|c| c.storage = StorageType::Memory), ["storage"]);
        assert_eq!(unsafe_settings(|c| c.discard = DiscardPolicy::Old), ["discard"]);
        assert_eq!(unsafe_settings(|c| c.max_messages = 10), ["max_msgs"]);
        assert_eq!(unsafe_settings(|c| c.max_messages_per_subject = 10), ["max_msgs_per_subject"]);
        assert_eq!(unsafe_settings(|c| c.max_age = Duration::from_secs(9)), ["max_age"]);
        assert_eq!(unsafe_settings(|c| c.max_message_size = 1_000), ["max_msg_size"]);
        assert_eq!(unsafe_settings(|c| c.no_ack = true), ["no_ack"]);
        assert_eq!(unsafe_settings(|c| c.sealed = true), ["sealed"]);
        assert_eq!(unsafe_settings(|c| c.allow_rollup = true), ["allow_rollup_hdrs"]);
        assert_eq!(unsafe_settings(|c| c.deny_delete = false), ["deny_delete"]);
        assert_eq!(unsafe_settings(|c| c.deny_purge = true), ["deny_purge"]);
        assert_eq!(unsafe_settings(|c| c.allow_direct = false), ["allow_direct"]);
        assert_eq!(unsafe_settings(|c| c.allow_message_ttl = true), ["allow_msg_ttl"]);
        assert_eq!(unsafe_settings(|c| c.allow_message_counter = true), ["allow_msg_counter"]);
        assert_eq!(unsafe_settings(|c| c.allow_message_schedules = true), ["allow_msg_schedules"]);
        assert_eq!(unsafe_settings(|c| c.persist_mode = Some(PersistenceMode::Async)), ["persist_mode"]);
        assert_eq!(unsafe_settings(|c| c.sources = Some(vec![Default::default()])), ["sources"]);
        assert_eq!(unsafe_settings(|c| c.mirror = Some(Default::default())), ["mirror"]);
        assert_eq!(unsafe_settings(|c| c.republish = None), ["republish"]);
    }

    #[test]
    fn the_message_gives_value_and_remedy() {
        let mut config = stream_config(1, -1);
        config.allow_rollup = true;
        config.max_messages = 5;
        assert_eq!(
            check_stream(&config).expect_err("unsafe").to_string(),
            "the stream OUTLIVE_LOG is unsafe for the log: max_msgs is 5 and must be -1 (no limit), allow_rollup_hdrs \
             is true and must be false; change it with `nats stream edit`"
        );
    }
}
