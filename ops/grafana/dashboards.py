"""The dashboards: what each panel asks, and why somebody would look at it. `generate` makes JSON of them."""

from panels import (
    BAD, CALM, GOOD, OFF, WARN, Dashboard, Query, Row, bars, heatmap, lines, stat, table, timeline, variable, words,
)

C = 'cluster="$cluster"'
# While nothing of the kind has happened there is nothing to show.
NONE_YET = "only after something of the kind has happened"
ZONE_WORDS = words([(0, "lost", OFF), (1, "draining", CALM), (2, "settling", WARN), (3, "steady", GOOD)])
# One number for a zone's state, so that a timeline can colour it.
ZONE_NUMBER = (
    f'sum by (zone) (leader:outlive_zone_state{{{C}, state="steady"}} * 3'
    f' or leader:outlive_zone_state{{{C}, state="settling"}} * 2'
    f' or leader:outlive_zone_state{{{C}, state="draining"}})'
)
# An executor that cannot be scraped counts as -1.
PLACED = (
    f'sum by (zone, instance) (outlive_attempts_held{{{C}}}) or '
    f'sum by (zone, instance) (up{{{C}, job="outlive-executor"}} == 0) - 1'
)


def quantiles(metric, by=""):
    """The median and the 99th percentile of a histogram, over enough time to hold some of what is rare."""
    grouped = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return [
        Query(
            f"histogram_quantile({q}, sum by ({grouped}) (rate({metric}_bucket{{{C}}}[5m])))", name + legend
        )
        for q, name in ((0.5, "median"), (0.99, "99th percentile"))
    ]


def cells(metric):
    return Query(f"sum by (le) (increase({metric}_bucket{{{C}}}[$__rate_interval]))", "{{le}}")


OVERVIEW = Dashboard(
    "outlive-overview",
    "Outlive: overview",
    "For a wall: what runs where, who leads, what is wrong.",
    [
        Row(
            "What is placed where",
            [
                timeline(
                    "Attempts on each executor, zone by zone",
                    "One line for each executor, with its zone before it. A number is how many jobs run there; a line that"
                    " turns red is an executor that is gone, and its jobs appear on other lines.",
                    Query(PLACED, "{{zone}} / {{instance}}"),
                    width=18,
                    height=10,
                    show="auto",
                    thresholds=[(None, OFF), (0, "dark-blue"), (1, CALM), (10, GOOD), (40, WARN)],
                    mappings=words([(-1, "gone", OFF)]),
                ),
                timeline(
                    "Zones",
                    "A zone is lost when none of its executors is there, and settles for a while before it gets work again.",
                    Query(ZONE_NUMBER, "{{zone}}"),
                    width=6,
                    height=10,
                    show="never",
                    thresholds=[(None, OFF), (1, CALM), (2, WARN), (3, GOOD)],
                    mappings=ZONE_WORDS,
                ),
            ],
        ),
        Row(
            "",
            [
                stat(
                    "Leader",
                    "The scheduler that leads, and its term.",
                    # Now, and not over time: each leader is a series of its own, and those that led before would show.
                    Query(f"leader:outlive_term{{{C}}}", "{{instance}}", instant=True),
                    width=4,
                    text="value_and_name",
                    graph="none",
                    thresholds=[(None, BAD), (1, CALM)],
                ),
                stat(
                    "Alerts firing",
                    "Each has a runbook under ops/docs/runbooks.",
                    Query(f'count(ALERTS{{alertstate="firing", {C}}}) or vector(0)', "alerts"),
                    thresholds=[(None, GOOD), (1, BAD)],
                ),
                stat(
                    "Running",
                    "Jobs that run now.",
                    Query(f'leader:outlive_jobs{{{C}, status="running"}}', "running"),
                    thresholds=[(None, CALM)],
                ),
                stat(
                    "Pending",
                    "Jobs that wait for a place.",
                    Query(f'leader:outlive_jobs{{{C}, status="pending"}}', "pending"),
                    thresholds=[(None, GOOD), (1, WARN)],
                ),
                stat(
                    "Restarting",
                    "Jobs between two attempts.",
                    Query(f'leader:outlive_jobs{{{C}, status="restarting"}}', "restarting"),
                    thresholds=[(None, GOOD), (1, WARN)],
                ),
                stat(
                    "Away the longest",
                    "How long the job that is away the longest has been.",
                    Query(f"leader:outlive_job_restarting_oldest_seconds{{{C}}}", "away"),
                    unit="s",
                    thresholds=[(None, GOOD), (10, WARN), (60, BAD)],
                ),
                stat(
                    "Commit, 99th percentile",
                    "From sealing a commit until it is durable.",
                    Query(f"cluster:outlive_log_commit_seconds:p99{{{C}}}", "commit"),
                    width=5,
                    unit="s",
                    thresholds=[(None, GOOD), (0.1, WARN), (0.25, BAD)],
                ),
            ],
        ),
        Row(
            "",
            [
                lines(
                    "Jobs by status",
                    "Of all that are not deleted; those that are over grow until somebody deletes them.",
                    Query(f"leader:outlive_jobs{{{C}}} > 0", "{{status}}"),
                    stacked=True,
                ),
                lines(
                    "Jobs accepted and over, per second",
                    "What comes in and what goes out.",
                    Query(f"cluster:outlive_jobs_submitted:rate1m{{{C}}}", "accepted"),
                    Query(f"sum by (outcome) (rate(outlive_jobs_finished_total{{{C}}}[1m]))", "{{outcome}}"),
                    unit="ops",
                ),
                lines(
                    "Recoveries in five minutes, by cause",
                    "Jobs that run again after a loss.",
                    Query(f"sum by (cause) (increase(outlive_job_recoveries_total{{{C}}}[5m]))", "{{cause}}"),
                    stacked=True,
                ),
                lines(
                    "How long recoveries took",
                    "From the last sign of life of an attempt until the next one runs.",
                    *quantiles("outlive_job_recovery_seconds"),
                    unit="s",
                ),
                lines(
                    "Ticks of schedules in five minutes",
                    "By what became of them; a missed one is one at whose time nobody led.",
                    Query(f"sum by (outcome) (increase(outlive_schedule_ticks_total{{{C}}}[5m]))", "{{outcome}}"),
                ),
                lines(
                    "How late ticks are",
                    "From the time that a tick names until it is taken, and the one that is overdue.",
                    *quantiles("outlive_schedule_tick_delay_seconds"),
                    Query(f"leader:outlive_schedule_tick_overdue_seconds{{{C}}}", "overdue now"),
                    unit="s",
                ),
                lines(
                    "Room taken, of all zones",
                    "The dashed part above 100 % of what is left without the largest zone would not survive its loss.",
                    Query(f"cluster:outlive_executor_allocated:ratio{{{C}}}", "{{resource}}"),
                    Query(
                        f"cluster:outlive_executor_allocated_without_largest_zone:ratio{{{C}}}",
                        "{{resource}}, without the largest zone",
                    ),
                    unit="percentunit",
                    bounds={"min": 0},
                ),
                lines(
                    "Oldest checkpoint of a running job",
                    "What the unluckiest job would lose now; jobs whose state does not change do not count here.",
                    Query(f"max by (zone) (outlive_checkpoint_age_seconds{{{C}, job=\"outlive-executor\"}})", "zone {{zone}}"),
                    unit="s",
                ),
            ],
        ),
    ],
)

RECOVERY = Dashboard(
    "outlive-recovery",
    "Outlive: recovery and zones",
    "What was lost, how soon it was back, and from where.",
    [
        Row(
            "Zones",
            [
                timeline(
                    "Zones",
                    "As the leader sees them.",
                    Query(ZONE_NUMBER, "{{zone}}"),
                    height=6,
                    show="never",
                    thresholds=[(None, OFF), (1, CALM), (2, WARN), (3, GOOD)],
                    mappings=ZONE_WORDS,
                ),
                lines(
                    "Executors by state",
                    "Lost ones are shown until an executor of the same name is back.",
                    Query(f"sum by (zone, state) (leader:outlive_executors{{{C}}}) > 0", "{{zone}} {{state}}"),
                    stacked=True,
                ),
                lines(
                    "Lost within ten minutes",
                    "Without a goodbye, and not back.",
                    Query(f"leader:outlive_executors_lost_recently{{{C}}}", "{{zone}}"),
                ),
            ],
        ),
        Row(
            "Recoveries",
            [
                heatmap(
                    "How long jobs were away",
                    "Each cell counts recoveries that took so long.",
                    cells("outlive_job_recovery_seconds"),
                ),
                lines(
                    "How long jobs were away, by cause",
                    "Process exits wait for the job's own back-off; losses of hosts and zones should not wait for anything.",
                    *quantiles("outlive_job_recovery_seconds", "cause"),
                    unit="s",
                ),
                lines(
                    "Recoveries in five minutes, by cause",
                    "Jobs that run again after a loss.",
                    Query(f"sum by (cause) (increase(outlive_job_recoveries_total{{{C}}}[5m]))", "{{cause}}"),
                    stacked=True,
                ),
                lines(
                    "Time lost, seconds in a minute",
                    "How long jobs were away, summed over all jobs.",
                    Query(f"60 * sum(rate(outlive_job_downtime_seconds_total{{{C}}}[5m]))", "seconds"),
                    unit="s",
                ),
                lines(
                    "Between two attempts",
                    "How many jobs are, and how long the longest of them has been.",
                    Query(f'leader:outlive_jobs{{{C}, status="restarting"}}', "restarting"),
                    Query(f"leader:outlive_job_restarting_oldest_seconds{{{C}}}", "longest, seconds"),
                ),
                lines(
                    "How attempts ended, in five minutes",
                    "As the executors saw it.",
                    Query(f"sum by (outcome) (increase(outlive_attempts_ended_total{{{C}}}[5m]))", "{{outcome}}"),
                    stacked=True,
                ),
                lines(
                    "Fetching a state and putting it back",
                    "The part of a recovery that grows with the state.",
                    *quantiles("outlive_restore_seconds"),
                    unit="s",
                ),
                lines(
                    "Restores in five minutes, by outcome",
                    "A state that could not be put back means that the checkpoint before it is used.",
                    Query(f"sum by (outcome) (increase(outlive_restores_total{{{C}}}[5m]))", "{{outcome}}"),
                ),
                lines(
                    "The longest silence of a live executor",
                    "Executors say something four times a second.",
                    Query(f"max(outlive_heartbeat_age_seconds{{{C}, job=\"outlive-scheduler\"}})", "silence"),
                    unit="s",
                ),
                lines(
                    "Changes of leader in fifteen minutes",
                    "Each costs a moment without placements.",
                    Query(f"changes(cluster:outlive_term:max{{{C}}}[15m])", "changes"),
                ),
            ],
        ),
    ],
)

LOG = Dashboard(
    "outlive-log",
    "Outlive: log and leadership",
    "Who leads, how quick and how safe the log is, and what it stands on.",
    [
        Row(
            "Leadership",
            [
                timeline(
                    "Who leads",
                    "One line for each scheduler.",
                    Query(f"outlive_leader{{{C}}}", "{{instance}}"),
                    width=16,
                    height=6,
                    show="never",
                    thresholds=[(None, "dark-blue"), (1, GOOD)],
                    mappings=words([(0, "stands by", "dark-blue"), (1, "leads", GOOD)]),
                ),
                lines(
                    "Term",
                    "It rises with each new leader, and never falls.",
                    Query(f"cluster:outlive_term:max{{{C}}}", "term"),
                    width=8,
                    height=6,
                ),
            ],
        ),
        Row(
            "Commits",
            [
                heatmap(
                    "How long commits take",
                    "From sealing until durable. Seconds mean that JetStream elects.",
                    cells("outlive_log_commit_seconds"),
                ),
                lines(
                    "How long commits take",
                    "Every submission, placement and checkpoint waits for one.",
                    Query(f"cluster:outlive_log_commit_seconds:p50{{{C}}}", "median"),
                    Query(f"cluster:outlive_log_commit_seconds:p99{{{C}}}", "99th percentile"),
                    unit="s",
                ),
                lines(
                    "Commits per second",
                    "Load makes commits larger rather than more frequent.",
                    Query(f"cluster:outlive_log_commits:rate1m{{{C}}}", "commits"),
                    unit="ops",
                ),
                lines("Events in a commit", "See beside.", *quantiles("outlive_log_commit_events")),
                lines(
                    "The append under way",
                    "How long it has been, and how many commits wait behind it.",
                    Query(f"leader:outlive_log_append_waiting_seconds{{{C}}}", "seconds"),
                    Query(f"max(outlive_log_commits_waiting{{{C}}})", "commits behind it"),
                ),
                lines(
                    "Appends that did not go through at once, in a minute",
                    "Retries are harmless; a conflict ends a term; a failure means that the log refuses, for being full say.",
                    Query(f"sum(increase(outlive_log_append_retries_total{{{C}}}[1m]))", "retries"),
                    Query(f"sum(increase(outlive_log_append_conflicts_total{{{C}}}[1m]))", "conflicts"),
                    Query(f"sum(increase(outlive_log_append_failures_total{{{C}}}[1m]))", "failures"),
                ),
                lines(
                    "Without a witness",
                    "How long acknowledged commits have not been witnessed in etcd; a fifth of a second is usual.",
                    Query(f"leader:outlive_witness_lag_seconds{{{C}}}", "seconds"),
                    unit="s",
                ),
                lines(
                    "Behind the leader, in commits",
                    "How far each scheduler has followed; a standby that is behind takes over later.",
                    Query(
                        f"max by (cluster) (outlive_log_sequence{{{C}}})"
                        f" - on (cluster) group_right () outlive_log_sequence{{{C}}}",
                        "{{instance}}",
                    ),
                ),
            ],
        ),
        Row(
            "What it stands on",
            [
                bars(
                    "How full the streams are",
                    "A full log takes no more jobs, a full blob stream no more checkpoints; of the jobs' output the oldest goes.",
                    Query(f"cluster:outlive_stream_fill:ratio{{{C}}}", "{{stream}}"),
                    unit="percentunit",
                    bounds={"min": 0, "max": 1},
                    thresholds=[(None, GOOD), (0.8, WARN), (0.95, BAD)],
                ),
                lines(
                    "What the streams hold",
                    "Bytes.",
                    Query(f"cluster:outlive_stream_bytes:max{{{C}}}", "{{stream}}"),
                    width=8,
                    unit="bytes",
                ),
                lines(
                    "Replicas that are not current",
                    "One more loss, and such a stream may take nothing more.",
                    Query(
                        f'sum by (stream) (cluster:outlive_stream_replicas:max{{{C}, state=~"lagging|offline"}})', "{{stream}}"
                    ),
                    width=8,
                ),
                timeline(
                    "Streams with a leader",
                    "JetStream takes about six seconds to elect another.",
                    Query(f"cluster:outlive_stream_has_leader:max{{{C}}}", "{{stream}}"),
                    width=12,
                    show="never",
                    thresholds=[(None, OFF), (1, GOOD)],
                    mappings=words([(0, "without a leader", OFF), (1, "led", GOOD)]),
                ),
                lines(
                    "Connections to NATS that were lost, in five minutes",
                    "By process.",
                    Query(f"increase(outlive_nats_disconnects_total{{{C}}}[5m]) > 0", "{{instance}}", may_be_empty=NONE_YET),
                ),
                lines(
                    "etcd: writing its log, 99th percentile",
                    "Slow disks make etcd elect, and leases run out.",
                    Query(
                        "histogram_quantile(0.99, sum by (instance, le)"
                        f" (rate(etcd_disk_wal_fsync_duration_seconds_bucket{{{C}}}[1m])))",
                        "{{instance}}",
                    ),
                    unit="s",
                ),
                lines(
                    "etcd: members that see a leader",
                    "Without one no scheduler can lead.",
                    Query(f"sum(etcd_server_has_leader{{{C}}})", "members"),
                    bounds={"min": 0},
                ),
            ],
        ),
    ],
)

CHECKPOINTS = Dashboard(
    "outlive-checkpoints",
    "Outlive: checkpoints",
    "How often states are saved, how long jobs stand still for it, and what it costs.",
    [
        Row(
            "",
            [
                lines(
                    "Checkpoints per second, by outcome",
                    "A state that did not change makes no new one.",
                    Query(f"sum by (outcome) (rate(outlive_checkpoints_total{{{C}}}[1m]))", "{{outcome}}"),
                    unit="ops",
                ),
                lines(
                    "Jobs whose checkpoint is overdue",
                    "Their state was last known to be safe more than two of their intervals ago.",
                    Query(f"sum by (instance) (outlive_checkpoints_overdue{{{C}}})", "{{instance}}"),
                ),
                heatmap(
                    "How long jobs stand still",
                    "The part of a checkpoint that a job feels.",
                    cells("outlive_checkpoint_pause_seconds"),
                ),
                lines(
                    "How long jobs stand still",
                    "It grows with what changed since the last checkpoint, not with the state.",
                    *quantiles("outlive_checkpoint_pause_seconds"),
                    unit="s",
                ),
                lines(
                    "From beginning to stored",
                    "The job runs for most of this time.",
                    *quantiles("outlive_checkpoint_duration_seconds"),
                    unit="s",
                ),
                lines(
                    "Bytes per second",
                    "The states' sizes, and what had to be uploaded of them.",
                    Query(f"sum by (kind) (rate(outlive_checkpoint_bytes_total{{{C}}}[1m]))", "{{kind}}"),
                    unit="Bps",
                ),
                lines(
                    "The oldest state that a running job would fall back to",
                    "By executor.",
                    Query(f'outlive_checkpoint_age_seconds{{{C}, job="outlive-executor"}}', "{{instance}}"),
                    unit="s",
                ),
                lines(
                    "Restores in five minutes, by outcome",
                    "Attempts that began with a checkpoint.",
                    Query(f"sum by (outcome) (increase(outlive_restores_total{{{C}}}[5m]))", "{{outcome}}"),
                ),
                stat(
                    "Sealed data that did not open",
                    "Since the processes were started. Any is one too many.",
                    Query(f"sum(outlive_decrypt_failures_total{{{C}}})", "failures"),
                    width=6,
                    height=6,
                    thresholds=[(None, GOOD), (1, BAD)],
                ),
                stat(
                    "Snapshots that failed",
                    "Since the schedulers were started.",
                    Query(f'sum(outlive_snapshots_total{{{C}, outcome="failed"}})', "failed"),
                    width=6,
                    height=6,
                    thresholds=[(None, GOOD), (1, WARN)],
                ),
                bars(
                    "How full the blob stream is",
                    "Checkpoints and images live there.",
                    Query(f'cluster:outlive_stream_fill:ratio{{{C}, stream="OUTLIVE_BLOB"}}', "{{stream}}"),
                    width=12,
                    height=6,
                    unit="percentunit",
                    bounds={"min": 0, "max": 1},
                    thresholds=[(None, GOOD), (0.8, WARN), (0.95, BAD)],
                ),
            ],
        )
    ],
)

EXECUTORS = Dashboard(
    "outlive-executors",
    "Outlive: executors",
    "Room, load and health of the hosts that run jobs.",
    [
        Row(
            "",
            [
                timeline(
                    "Attempts on each executor",
                    "A line that turns red is an executor that is gone.",
                    Query(PLACED, "{{zone}} / {{instance}}"),
                    thresholds=[(None, OFF), (0, "dark-blue"), (1, CALM), (10, GOOD), (40, WARN)],
                    mappings=words([(-1, "gone", OFF)]),
                ),
                bars(
                    "Slots taken, by zone",
                    "Of live executors.",
                    Query(
                        f'leader:outlive_executor_allocated{{{C}, resource="slots"}}'
                        f' / (leader:outlive_executor_capacity{{{C}, resource="slots"}} > 0)',
                        "zone {{zone}}",
                    ),
                    unit="percentunit",
                    bounds={"min": 0, "max": 1},
                    thresholds=[(None, GOOD), (0.7, WARN), (0.9, BAD)],
                ),
                lines(
                    "Cores set aside, by zone",
                    "What attempts have reserved.",
                    Query(f'leader:outlive_executor_allocated{{{C}, resource="cpu_cores"}}', "{{zone}} taken"),
                    Query(f'leader:outlive_executor_capacity{{{C}, resource="cpu_cores"}}', "{{zone}} there"),
                    width=8,
                ),
                lines(
                    "Memory set aside, by zone",
                    "What attempts have reserved.",
                    Query(f'leader:outlive_executor_allocated{{{C}, resource="memory_bytes"}}', "{{zone}} taken"),
                    Query(f'leader:outlive_executor_capacity{{{C}, resource="memory_bytes"}}', "{{zone}} there"),
                    width=8,
                    unit="bytes",
                ),
                lines(
                    "Waiting in queues",
                    "Jobs that are not placed, by queue.",
                    Query(f"leader:outlive_queue_waiting_jobs{{{C}}}", "{{namespace}} {{queue}}"),
                    width=8,
                ),
                lines(
                    "Running, by queue",
                    "Jobs that hold room.",
                    Query(f"leader:outlive_queue_running_jobs{{{C}}}", "{{namespace}} {{queue}}"),
                    width=8,
                ),
                lines(
                    "Oldest wait, by queue",
                    "How long the job has been ready that has been so the longest.",
                    Query(f"leader:outlive_queue_oldest_wait_seconds{{{C}}}", "{{namespace}} {{queue}}"),
                    width=8,
                    unit="s",
                ),
                lines(
                    "Held queues",
                    "1 while a pause, a cap or a rate holds jobs that wait.",
                    Query(f"leader:outlive_queue_throttled{{{C}}} > 0", "{{namespace}} {{queue}}: {{by}}"),
                ),
                lines(
                    "Waiting for a place",
                    "How long the job that waits the longest could have run.",
                    Query(f"leader:outlive_queue_oldest_seconds{{{C}}}", "longest"),
                    unit="s",
                ),
                lines(
                    "From submission to running",
                    "First attempts.",
                    *quantiles("outlive_job_start_delay_seconds"),
                    unit="s",
                ),
                lines(
                    "A small durable write",
                    "How long it takes in the data directory: a disk that is dying shows here first.",
                    Query(f"outlive_disk_write_seconds{{{C}}}", "{{instance}}"),
                    unit="s",
                ),
                lines(
                    "How late timers fire",
                    "A host that has too much to do.",
                    Query(f"outlive_scheduling_lag_seconds{{{C}}}", "{{instance}}"),
                    unit="s",
                ),
                lines(
                    "Memory left on the host",
                    "Checkpoints pass through what jobs leave of it.",
                    Query(f"outlive_memory_available_bytes{{{C}}}", "{{instance}}"),
                    unit="bytes",
                ),
                lines(
                    "Since the lease was renewed",
                    "At five seconds an executor counts as gone, and its shims kill what runs there.",
                    Query(f"outlive_lease_age_seconds{{{C}}}", "{{instance}}"),
                    unit="s",
                ),
                lines(
                    "Reports that the leader has not confirmed",
                    "They are sent again and again until it has.",
                    Query(f"outlive_reports_waiting{{{C}}}", "{{instance}}"),
                ),
                lines(
                    "Since the leader was heard",
                    "By executor.",
                    Query(f'outlive_heartbeat_age_seconds{{{C}, job="outlive-executor"}} < +Inf', "{{instance}}"),
                    unit="s",
                ),
                table(
                    "Versions",
                    "What each process was built from.",
                    Query(f"outlive_build_info{{{C}}}"),
                    hidden=("Value", "__name__", "cluster", "job"),
                    names={"instance": "process", "role": "role", "version": "version", "zone": "zone"},
                    width=24,
                ),
            ],
        )
    ],
)

NAMESPACE = Dashboard(
    "outlive-namespace",
    "Outlive: one namespace",
    "What a team has running.",
    [
        Row(
            "",
            [
                *(
                    stat(
                        status.capitalize(),
                        f"Jobs of the namespace that are {status}.",
                        Query(
                            f'leader:outlive_namespace_jobs{{{C}, namespace="$namespace", status="{status}"}} or vector(0)',
                            status,
                        ),
                        width=4,
                        thresholds=[(None, colour)] + ([(1, warning)] if warning else []),
                    )
                    for status, colour, warning in (
                        ("running", CALM, None),
                        ("pending", GOOD, WARN),
                        ("restarting", GOOD, WARN),
                        ("succeeded", GOOD, None),
                        ("failed", GOOD, BAD),
                        ("stopped", CALM, None),
                    )
                ),
                lines(
                    "Jobs by status",
                    "Of all of the namespace that are not deleted.",
                    Query(f'leader:outlive_namespace_jobs{{{C}, namespace="$namespace"}} > 0', "{{status}}"),
                    stacked=True,
                    width=16,
                    height=10,
                ),
                bars(
                    "Running jobs, by namespace",
                    "How this one compares.",
                    Query(f'leader:outlive_namespace_jobs{{{C}, status="running"}}', "{{namespace}}"),
                    width=8,
                    height=10,
                    thresholds=[(None, CALM)],
                ),
            ],
        )
    ],
    variables=[
        variable("namespace", "Namespace", 'label_values(leader:outlive_namespace_jobs{cluster="$cluster"}, namespace)')
    ],
)

ALL = [OVERVIEW, RECOVERY, LOG, CHECKPOINTS, EXECUTORS, NAMESPACE]
