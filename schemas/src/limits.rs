//! Every limit that Outlive puts on what comes from outside or piles up inside, with its reason.
//!
//! Going over one of them is always a named error, never a silent cut.

use crate::time::Timestamp;

/// A request's body. NATS allows 1 MiB by default, and a commit that holds the request must fit in one message.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// One job's specification once encoded. A thousand at the limit would not fit a commit; see [`SUBMISSION_BYTES_MAX`].
pub const JOB_SPEC_BYTES_MAX: usize = 512 * 1024;
/// A job's input. Larger inputs belong in a store of the user's; the job gets a reference.
pub const INPUT_BYTES_MAX: usize = 256 * 1024;
/// What a job may leave in `$OUTLIVE_RESULT` (contract).
pub const RESULT_BYTES_MAX: usize = 256 * 1024;
/// Jobs in one `job.submit_many` (contract).
pub const SUBMIT_MANY_MAX: usize = 1_000;
/// Encoded events of one all-or-nothing submission: it must fit one commit, which must fit one NATS message.
pub const SUBMISSION_BYTES_MAX: usize = 900 * 1024;
/// A `Nats-Msg-Id`. Long enough for any id scheme, short enough to keep by the million.
pub const REQUEST_ID_BYTES_MAX: usize = 256;
/// Who asked, as given by the client.
pub const ACTOR_BYTES_MAX: usize = 128;

/// Words of a command line.
pub const COMMAND_ARGS_MAX: usize = 1_024;
/// Bytes of a command line and of an environment: what Linux takes for one argument is 128 KiB.
pub const COMMAND_BYTES_MAX: usize = 256 * 1024;
pub const ENV_VARS_MAX: usize = 1_024;
pub const ENV_BYTES_MAX: usize = 128 * 1024;
pub const LABELS_MAX: usize = 64;
pub const LABEL_BYTES_MAX: usize = 128;
pub const PLACEMENT_ZONES_MAX: usize = 64;
/// Tasks of one array.
pub const ARRAY_TASKS_MAX: u32 = 100_000;
/// Tasks of an array that are on their way at once, where it does not say; each of these is a job in memory.
pub const ARRAY_PARALLEL_DEFAULT: u32 = 1_000;
pub const ARRAY_PARALLEL_MAX: u32 = 10_000;
/// Ranges of indexes in one request about some of an array's tasks: about twelve bytes each in a commit.
pub const ARRAY_RANGES_MAX: usize = 1_000;
/// Jobs that one job waits for. A graph that is wider has room for a job in between.
pub const DEPENDENCIES_MAX: usize = 1_000;
/// What the results that reach one job may have together. With its specification they have to fit one order to an
/// executor.
pub const INPUTS_BYTES_MAX: usize = 384 * 1024;

/// Snapshots of one job that users have asked for (contract). Each takes some 300 bytes of the scheduler's memory.
pub const SNAPSHOTS_PER_JOB_MAX: usize = 1_000;
/// Snapshots of one job that Outlive took by itself, at stops and updates; of more the oldest is let go.
pub const SYSTEM_SNAPSHOTS_PER_JOB_MAX: usize = 1_000;
/// Versions of one job that are remembered, with their specifications; of more the oldest is forgotten.
pub const VERSIONS_PER_JOB_MAX: usize = 100;

/// One million millicores: a thousand cores, more than any host in sight.
pub const CPU_MILLIS_MAX: u32 = 1_000_000;
/// 64 TiB.
pub const MEMORY_BYTES_MAX: u64 = 64 << 40;
pub const CHECKPOINT_INTERVAL_MS_MIN: u64 = 100;
pub const CHECKPOINT_INTERVAL_MS_MAX: u64 = 24 * 3_600_000;
/// One year: longer waits are more likely a mistake in the unit.
pub const DURATION_MS_MAX: u64 = 366 * 24 * 3_600_000;
/// The latest that a job may be asked to begin: the end of the year 2199. Beyond it a year is more likely mistyped.
pub const START_AT_MAX: Timestamp = Timestamp(7_258_118_399_999);
/// A shorter silence than this says nothing of a job.
pub const PROGRESS_TIMEOUT_MS_MIN: u64 = 1_000;
pub const CHECKPOINT_RETAIN_MAX: u32 = 100;
pub const RESTART_ATTEMPTS_MAX: u32 = 1_000_000;

pub const PRIORITY_MAX: u32 = 100;
/// Queues of one namespace, which one reply lists, and of all: each may keep a thousand times of starts for its rate.
pub const QUEUES_PER_NAMESPACE_MAX: usize = 500;
pub const QUEUES_MAX: usize = 10_000;
pub const QUEUE_CONCURRENCY_MAX: u32 = 1_000_000;
pub const QUEUE_RATE_MAX: u32 = 1_000_000;
pub const QUEUE_RATE_PER_MS_MIN: u64 = 100;
/// Thirty days.
pub const QUEUE_RATE_PER_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// Steps into which a rate's period is cut, to bound what is remembered of starts.
pub const QUEUE_RATE_STEPS: u64 = 1_000;
/// Jobs for which room is made at once, jobs that give way for one of them, and how many are looked at for either: few,
/// for each is a checkpoint, and others are tried a second later.
pub const PREEMPTIONS_AT_ONCE_MAX: usize = 8;
pub const PREEMPTED_FOR_ONE_MAX: usize = 16;
pub const PREEMPTORS_LOOKED_AT_MAX: usize = 64;
pub const PREEMPTION_SCAN_MAX: usize = 10_000;
pub const QUEUE_WEIGHT_MAX: u32 = 1_000;
/// As many as there may be live jobs.
pub const QUEUE_WAITING_MAX: u32 = LIVE_JOBS_MAX as u32;

/// Jobs in one page of `job.list`, by default and at most.
pub const LIST_LIMIT_DEFAULT: usize = 100;
pub const LIST_LIMIT_MAX: usize = 1_000;
/// Jobs that one `job.list` looks at before it returns a cursor: keeps a rare filter from holding up the leader.
pub const LIST_SCAN_MAX: usize = 20_000;
/// Snapshots in one page of `snapshot.list`, by default and at most.
pub const SNAPSHOTS_LIMIT_DEFAULT: usize = 100;
pub const SNAPSHOTS_LIMIT_MAX: usize = 1_000;
/// Versions in one page of `job.versions`; fewer where their specifications are large.
pub const VERSIONS_LIMIT_MAX: usize = VERSIONS_PER_JOB_MAX;
pub const HISTORY_LIMIT_DEFAULT: usize = 100;
pub const HISTORY_LIMIT_MAX: usize = 1_000;
/// Log entries in one page of `job.logs`.
pub const LOGS_LIMIT_DEFAULT: usize = 100;
pub const LOGS_LIMIT_MAX: usize = 500;
/// Reasons in one `job.why`: a fleet of ten thousand would not fit a reply.
pub const WHY_REASONS_MAX: usize = 200;
/// The longest that `job.wait` holds a request open, and how many are held at once.
pub const WAIT_MS_DEFAULT: u64 = 30_000;
pub const WAIT_MS_MAX: u64 = 3_600_000;
pub const WAITERS_MAX: usize = 100_000;

/// Commits that a job's history remembers. Older ones fall out first; the log itself keeps them until its window ends.
pub const HISTORY_COMMITS_PER_JOB_MAX: usize = 4_096;
/// The same of its checkpoints alone, which come by the thousand: so that they do not push everything else out.
pub const HISTORY_CHECKPOINTS_PER_JOB_MAX: usize = 1_024;
/// An import of whose client nothing was heard for so long has failed: six times as long as the pause between two signs
/// of it.
pub const IMPORT_SILENCE_MS_MAX: u64 = 60_000;
/// How often a client that imports says that it does.
pub const IMPORT_SIGN_MS: u64 = 10_000;
/// How long a finished job is kept unless configured otherwise: a week, as operators of other schedulers expect.
pub const RETENTION_FINISHED_MS_DEFAULT: u64 = 7 * 24 * 3_600_000;
/// And how many: some hundred megabytes of the scheduler's memory.
pub const RETENTION_FINISHED_DEFAULT: u64 = 100_000;
/// No finished job is forgotten sooner, however many there are: longer than any client repeats a request.
pub const RETENTION_AT_LEAST_MS_DEFAULT: u64 = 5 * 60_000;
/// Jobs that retention forgets in one turn of the leader: about a hundred bytes each in a commit.
pub const EXPIRIES_PER_TURN_MAX: usize = 500;
/// Deleted jobs whose remains the leader has erased at once, beside those that users wait for.
pub const ERASURES_MAX: usize = 16;
/// The longest that collecting may be held off in one go. Whoever needs longer asks again: so a backup that died
/// does not fill the blob store.
pub const COLLECTION_HOLD_MS_MAX: u64 = 3_600_000;
/// Schedules of all namespaces: what a leader can look through in a moment.
pub const SCHEDULES_MAX: usize = 10_000;
/// A schedule's name. With its ending, such as `-20260101t000000z`, it is a job's name.
pub const SCHEDULE_NAME_BYTES_MAX: usize = 46;
/// The same of a schedule whose jobs are arrays: their tasks' names end in an index as well, such as `-99999`.
pub const ARRAY_SCHEDULE_NAME_BYTES_MAX: usize = 40;
/// A schedule's expression, and the name of its time zone.
pub const CRON_BYTES_MAX: usize = 256;
/// A schedule that should be spread over more than a day should say so in its expression.
pub const JITTER_MS_MAX: u64 = 24 * 3_600_000;
/// A tick that is taken later than this, beyond its jitter, is one at whose time nobody led. A change of leaders takes
/// less, and is no reason to miss a tick.
pub const TICK_LATE_MS_MAX: u64 = 10_000;
/// Ticks that `catch_up` `all` makes up for, the newest; those before are missed.
pub const CATCH_UP_MAX: usize = 100;
/// Ticks of one schedule that wait for its jobs; beyond it they are skipped.
pub const TICKS_QUEUED_MAX: usize = 100;
/// Missed ticks that are counted in one go: a schedule of every second has 86,400 in a day.
pub const TICKS_MISSED_AT_ONCE: u64 = 1_000;
/// Ticks that a leader takes in one turn, so that requests are heard between them.
pub const TICKS_PER_TURN_MAX: usize = 500;
/// Times that a schedule's view shows (contract).
pub const NEXT_TICKS_SHOWN: usize = 10;
/// Schedules in one page of `schedule.list`, by default and at most: ten times are computed for each.
pub const SCHEDULES_LIMIT_DEFAULT: usize = 100;
pub const SCHEDULES_LIMIT_MAX: usize = 500;
/// Jobs that one `job.retry` or `job.delete` by filter changes: their events must fit one commit.
pub const CHANGE_MANY_MAX: usize = 1_000;
/// Requests other than submissions whose ids are remembered, so that repeating them is harmless.
pub const REQUESTS_REMEMBERED_MAX: usize = 10_000;
/// Jobs that are not finished. At about 1 KiB each this is the memory of a small host.
pub const LIVE_JOBS_MAX: usize = 10_000_000;
/// Specifications and results held in memory, over all jobs.
pub const HELD_BYTES_MAX: u64 = 4 << 30;
/// Jobs whose traces a leader remembers; what is over the limit runs untraced.
pub const TRACES_MAX: usize = 100_000;
/// Jobs that `sys.status` names as restarting: what a person reads at a glance.
pub const RESTARTING_SHOWN_MAX: usize = 20;
/// Namespaces whose jobs are counted in metrics one by one: each is a dozen series on every scrape.
pub const NAMESPACES_SHOWN_MAX: usize = 500;
/// Queues that metrics show, each with six series.
pub const QUEUES_SHOWN_MAX: usize = 200;
/// Executors known at once.
pub const EXECUTORS_MAX: usize = 100_000;

/// Executors and zones that are drained at once: entries outlive the executors they speak of.
pub const DRAINS_MAX: usize = 10_000;
/// Attempts that one executor which is not well gives back at once: each waits for its slow disk behind the others.
pub const EVACUATIONS_AT_ONCE_MAX: usize = 8;

/// Events and bytes of a commit at which the next one is begun (design, section 1).
pub const COMMIT_EVENTS_MAX: usize = 2_000;
pub const COMMIT_BYTES_MAX: usize = 256 * 1024;
/// A sealed commit as stored; below NATS' default `max_payload` of 1 MiB, with room for headers.
pub const COMMIT_SEALED_BYTES_MAX: usize = 1024 * 1024 - 16 * 1024;
/// A commit opened: bounds what a hostile or broken frame can make a reader allocate.
pub const COMMIT_OPENED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Commits, and their bytes, that may stand in etcd while the log's stream has no leader. Enough for the 4 to 10 s that
/// an election takes, and small beside what etcd keeps; beyond it appends wait.
pub const BRIDGE_COMMITS_MAX: usize = 64;
pub const BRIDGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Inputs waiting for the leader's loop; beyond it requests are answered `unavailable`.
pub const LEADER_QUEUE_MAX: usize = 65_536;

/// Placements in one round of planning: one commit's worth with room for the submissions beside them.
pub const PLACEMENTS_PER_ROUND_MAX: usize = 1_000;
/// Attempts that one executor may be told of, or report, in one message; and that message's bytes.
pub const MESSAGE_ITEMS_MAX: usize = 1_000;
pub const MESSAGE_BYTES_MAX: usize = 768 * 1024;
/// Reports an executor holds unacknowledged before it stops taking new assignments.
pub const REPORTS_HELD_MAX: usize = 100_000;
/// Attempts on one executor.
pub const SLOTS_MAX: u32 = 100_000;
pub const SLOTS_DEFAULT: u32 = 4_096;

/// A blob as stored: one NATS message.
pub const BLOB_BYTES_MAX: usize = 1024 * 1024 - 16 * 1024;
/// Files, links and directories in one checkpoint.
pub const CHECKPOINT_ENTRIES_MAX: usize = 5_000_000;
/// A manifest once opened.
pub const MANIFEST_BYTES_MAX: usize = 1 << 30;
/// A path inside a state directory: Linux's own limit.
pub const PATH_BYTES_MAX: usize = 4_096;
/// One entry of a job's log.
pub const LOG_ENTRY_BYTES_MAX: usize = 64 * 1024;
/// Output of a job held in memory while the log store is out of reach; beyond it the oldest is dropped and said so.
pub const LOG_HELD_BYTES_MAX: usize = 1024 * 1024;
/// Entries kept per job: at the entry limit 64 MiB, at a line each about a thousand lines.
pub const LOG_ENTRIES_PER_JOB_MAX: i64 = 1_024;

/// A text that explains a failure.
pub const REASON_BYTES_MAX: usize = 2_048;
