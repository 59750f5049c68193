//! The objects that `--json` prints, one a line; described in `docs/command-line.md`.
//!
//! Each has a `type`. Times are RFC 3339 in UTC with nanoseconds, sizes are in
//! bytes. A path that isn't UTF-8 comes with a second field that has its bytes
//! in hexadecimal.

use backstop::{
    BackupReport, Change, CheckReport, Entry, EntryKind, FileTime, Finding, FindingKind, ForgetPlan, ForgetReport,
    ForgottenSnapshot, GcPlan, GcReport, Key, KeyKind, KeyRotation, KeySlot, MergePlan, MergeReport, Metadata,
    Mismatch, PackFate, PackReason, Phase, Posix, RepairAction, RepairPlan, RepairReport, RepairStep, Repository,
    RepositoryStats, RestoreReport, Right, Snapshot, SnapshotDecision, SnapshotLoss, SnapshotStats, StoreOperation,
    StoreRights, Timestamp, Usage, WaitingFor,
};
use serde_json::{Map, Value, json};

use crate::commands::Difference;
use crate::human;

/// Where an operation stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) phase: Option<Phase>,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Zero where it isn't known.
    pub(crate) expected_files: u64,
    /// Zero where it isn't known.
    pub(crate) expected_bytes: u64,
    pub(crate) failures: u64,
}

impl Progress {
    pub(crate) fn to_json(self) -> Value {
        let known = |number: u64| (number > 0).then_some(number);
        json!({
            "type": "progress",
            "phase": self.phase.map(|phase| phase.to_string()),
            "files": self.files,
            "bytes": self.bytes,
            "expected_files": known(self.expected_files),
            "expected_bytes": known(self.expected_bytes),
            "failures": self.failures,
        })
    }
}

/// An object on one line, in which everything is escaped that a terminal would not show as it is.
pub(crate) fn line(object: &Value) -> String {
    let text = object.to_string();
    if !text.chars().any(human::is_hidden) {
        return text;
    }
    // Outside of strings JSON is ASCII that can be seen.
    let escape = |line: String, c: char| match human::is_hidden(c) {
        true => c.encode_utf16(&mut [0; 2]).iter().fold(line, |line, unit| line + &format!("\\u{unit:04x}")),
        false => line + c.encode_utf8(&mut [0; 4]),
    };
    text.chars().fold(String::new(), escape)
}

pub(crate) fn error(message: &str, causes: &[String], hint: Option<&str>) -> Value {
    json!({"type": "error", "message": message, "causes": causes, "hint": hint})
}

pub(crate) fn failure(path: &str, reason: &str) -> Value {
    json!({"type": "failure", "path": path, "reason": reason})
}

pub(crate) fn created(repository: &Repository, location: &str) -> Value {
    json!({
        "type": "repository",
        "id": repository.id().to_string(),
        "fingerprint": repository.fingerprint().to_string(),
        "location": location,
    })
}

pub(crate) fn rights(rights: &StoreRights, mismatches: &[(StoreOperation, Mismatch)]) -> Value {
    let mut value = json!({"type": "rights", "left": rights.left});
    for (operation, right) in rights.all() {
        value[operation_name(operation)] = right_name(right).into();
    }
    let named = |kind| mismatches.iter().filter(move |(_, mismatch)| *mismatch == kind);
    let names = |kind| named(kind).map(|(operation, _)| operation_name(*operation)).collect::<Vec<_>>();
    value["too_much"] = json!(names(Mismatch::TooMuch));
    value["too_little"] = json!(names(Mismatch::TooLittle));
    value["unknown"] = json!(names(Mismatch::Unknown));
    value
}

fn operation_name(operation: StoreOperation) -> &'static str {
    match operation {
        StoreOperation::List => "list",
        StoreOperation::Create => "create",
        StoreOperation::Read => "read",
        StoreOperation::CreateAgain => "create_again",
        StoreOperation::Overwrite => "overwrite",
        StoreOperation::Delete => "delete",
        _ => "other",
    }
}

fn right_name(right: &Right) -> &'static str {
    match right {
        Right::Allowed => "allowed",
        Right::Refused => "refused",
        _ => "unknown",
    }
}

pub(crate) fn backup(report: &BackupReport) -> Value {
    json!({
        "type": "backup",
        "snapshot": report.snapshot.as_ref().map(|snapshot| snapshot.to_string()),
        "time": report.snapshot.as_ref().map(|snapshot| time(snapshot.time)),
        "hash": report.snapshot.as_ref().map(|snapshot| snapshot.hash.to_string()),
        "dry_run": report.snapshot.is_none(),
        "failures": report.failures.len(),
        "stats": snapshot_stats(&report.stats),
    })
}

pub(crate) fn snapshot(snapshot: &Snapshot) -> Value {
    let mut value = json!({
        "type": "snapshot",
        "snapshot": snapshot.to_string(),
        "series": snapshot.series,
        "number": snapshot.number,
        "time": time(snapshot.time),
        "clock": time(snapshot.clock),
        "hash": snapshot.hash.to_string(),
        "predecessor": snapshot.predecessor.map(|hash| hash.to_string()),
        "host": snapshot.host,
        "tags": snapshot.tags,
        "paths": snapshot.paths,
        "root": snapshot.root.to_string(),
        "entries": snapshot.entries,
        "parent": snapshot.parent,
        "origin": snapshot.origin.map(|origin| json!({"number": origin.number, "time": time(origin.time)})),
        "partial": snapshot.is_partial(),
        "failures": snapshot.failure_count,
        "stats": snapshot_stats(&snapshot.stats),
        "position": null,
    });
    if let (Some(object), Some(position)) = (value.as_object_mut(), &snapshot.position) {
        bytes_field(object, "position", position);
    }
    value
}

pub(crate) fn forgotten(one: &ForgottenSnapshot) -> Value {
    let mut value = snapshot(&one.snapshot);
    value["forgotten"] = time(one.forgotten).into();
    value["until"] = time(one.until).into();
    value
}

fn snapshot_stats(stats: &SnapshotStats) -> Value {
    json!({
        "files": stats.files,
        "folders": stats.folders,
        "others": stats.others,
        "bytes": stats.bytes,
        "added": stats.added,
        "changed": stats.changed,
        "removed": stats.removed,
        "bytes_read": stats.bytes_read,
        "new_blobs": stats.new_blobs,
        "new_bytes": stats.new_bytes,
        "stored_bytes": stats.stored_bytes,
    })
}

pub(crate) fn entry(key: &Key, entry: &Entry, metadata: &Metadata, target: Option<&[u8]>) -> Value {
    let mut object = Map::new();
    object.insert("type".to_owned(), "entry".into());
    bytes_field(&mut object, "path", &key.as_path_bytes());
    object.insert("kind".to_owned(), kind(entry.kind).into());
    object.insert("size".to_owned(), entry.size.into());
    if let EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } = entry.kind {
        object.insert("device".to_owned(), json!([major, minor]));
    }
    if let Some(target) = target {
        bytes_field(&mut object, "target", target);
    }
    if let Some(posix) = &metadata.posix {
        posix_fields(&mut object, posix);
    }
    if let Some(content_type) = &metadata.content_type {
        object.insert("content_type".to_owned(), content_type.as_str().into());
    }
    object.into()
}

fn posix_fields(object: &mut Map<String, Value>, posix: &Posix) {
    let names: Vec<_> = posix.extended.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
    object.insert("mode".to_owned(), format!("{:04o}", posix.mode).into());
    object.insert("uid".to_owned(), posix.uid.into());
    object.insert("gid".to_owned(), posix.gid.into());
    object.insert("user".to_owned(), json!(posix.user));
    object.insert("group".to_owned(), json!(posix.group));
    object.insert("modified".to_owned(), file_time(posix.modified).into());
    object.insert("extended_attributes".to_owned(), json!(names));
}

pub(crate) fn change(change: &Change, difference: Difference) -> Value {
    change_fields(Map::new(), change, difference)
}

/// A change with the snapshot that made it.
pub(crate) fn revision(snapshot: &Snapshot, change: &Change, difference: Difference) -> Value {
    let mut object = Map::new();
    object.insert("snapshot".to_owned(), snapshot.to_string().into());
    object.insert("number".to_owned(), snapshot.number.into());
    object.insert("time".to_owned(), time(snapshot.time).into());
    change_fields(object, change, difference)
}

fn change_fields(mut object: Map<String, Value>, change: &Change, difference: Difference) -> Value {
    let side =
        |entry: &Option<Entry>| entry.as_ref().map(|entry| json!({"kind": kind(entry.kind), "size": entry.size}));
    object.insert("type".to_owned(), "change".into());
    object.insert("change".to_owned(), difference.name().into());
    bytes_field(&mut object, "path", &change.key.as_path_bytes());
    object.insert("old".to_owned(), json!(side(&change.old)));
    object.insert("new".to_owned(), json!(side(&change.new)));
    object.into()
}

pub(crate) fn restore(report: &RestoreReport, snapshot: &Snapshot, dry_run: bool) -> Value {
    json!({
        "type": "restore",
        "snapshot": snapshot.to_string(),
        "dry_run": dry_run,
        "files": report.files,
        "folders": report.folders,
        "others": report.others,
        "left_out": report.left_out,
        "bytes": report.bytes,
        "bytes_written": report.bytes_written,
        "unchanged": report.unchanged,
        "deleted": report.deleted,
        "failures": report.failure_count,
    })
}

pub(crate) fn finding(finding: &Finding) -> Value {
    json!({
        "type": "finding",
        "kind": finding_kind(finding.kind),
        "informational": finding.kind.is_informational(),
        "object": finding.object,
        "problem": finding.problem,
        "affected": finding.affected,
        "affected_count": finding.affected_count,
    })
}

pub(crate) fn check(report: &CheckReport) -> Value {
    json!({
        "type": "check",
        "sound": report.is_sound(),
        "defects": report.defects,
        "unsupported": report.unsupported,
        "findings_left_out": report.left_out,
        "snapshots": report.snapshots,
        "nodes": report.nodes,
        "entries": report.entries,
        "segments": report.segments,
        "packs": report.packs,
        "pack_bytes": report.pack_bytes,
        "blobs": report.blobs,
        "packs_read": report.packs_read,
        "bytes_read": report.bytes_read,
        "series": report.series.iter().map(|checked| json!({
            "series": checked.series,
            "latest": checked.latest,
            "whole_through": checked.whole_through,
        })).collect::<Vec<_>>(),
    })
}

pub(crate) fn finding_kind(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Damaged => "damaged",
        FindingKind::Missing => "missing",
        FindingKind::Inconsistent => "inconsistent",
        FindingKind::Undescribed => "undescribed",
        FindingKind::Unsupported => "unsupported",
        FindingKind::Leftover => "leftover",
        FindingKind::Unsigned => "unsigned",
        FindingKind::Foreign => "foreign",
        _ => "other",
    }
}

pub(crate) fn key(slot: &KeySlot) -> Value {
    json!({
        "type": "key",
        "id": slot.id.to_string(),
        "kind": key_kind(slot.kind),
        "label": slot.label,
        "created": time(slot.created),
        "append_only": slot.append_only,
        "current": slot.current,
        "authentic": slot.authentic,
    })
}

pub(crate) fn keys_rotated(rotation: &KeyRotation) -> Value {
    let keys: Vec<_> = rotation.keys.iter().map(ToString::to_string).collect();
    json!({"type": "keys_rotated", "generation": rotation.generation, "keys": keys})
}

pub(crate) fn key_removed(slot: &KeySlot) -> Value {
    json!({"type": "key_removed", "id": slot.id.to_string()})
}

pub(crate) fn key_kind(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Passphrase => "passphrase",
        KeyKind::RawKey => "key",
        KeyKind::Newer => "newer",
        _ => "other",
    }
}

pub(crate) fn merge_plan(plan: &MergePlan) -> Value {
    json!({
        "type": "merge_plan",
        "packs": plan.packs,
        "pack_bytes": plan.pack_bytes,
        "segments": plan.segments,
        "segment_bytes": plan.segment_bytes,
        "unfinished": plan.unfinished,
    })
}

pub(crate) fn merge_report(report: &MergeReport) -> Value {
    json!({
        "type": "merge",
        "packs_written": report.packs_written,
        "bytes_written": report.bytes_written,
        "packs_deleted": report.packs_deleted,
        "segments_deleted": report.segments_deleted,
        "left": report.left,
    })
}

pub(crate) fn decision(decision: &SnapshotDecision) -> Value {
    let snapshot = &decision.snapshot;
    json!({
        "type": "decision",
        "snapshot": snapshot.to_string(),
        "series": snapshot.series,
        "number": snapshot.number,
        "time": time(snapshot.time),
        "keep": decision.keep,
        "reasons": decision.reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// What was forgotten, or without a report would be.
pub(crate) fn forget(plan: &ForgetPlan, report: Option<&ForgetReport>) -> Value {
    let gone = plan.forgotten().count();
    json!({
        "type": "forget",
        "dry_run": report.is_none(),
        "kept": plan.decisions.len() - gone,
        "forgotten": gone,
        "until": report.and_then(|report| report.until).map(time),
    })
}

/// What was brought back, or without a snapshot would be.
pub(crate) fn undelete(snapshot: Option<&Snapshot>, origin: &str) -> Value {
    json!({
        "type": "undelete",
        "snapshot": snapshot.map(ToString::to_string),
        "time": snapshot.map(|snapshot| time(snapshot.time)),
        "hash": snapshot.map(|snapshot| snapshot.hash.to_string()),
        "undeleted": origin,
        "dry_run": snapshot.is_none(),
    })
}

pub(crate) fn gc_plan(plan: &GcPlan) -> Value {
    // Nothing is looked at while one isn't finished.
    let known = |number: u64| plan.unfinished.is_none().then_some(number);
    json!({
        "type": "gc_plan",
        "unfinished": plan.unfinished,
        "due": plan.is_due(),
        "snapshots": known(plan.snapshots),
        "undeletable": known(plan.undeletable),
        "forgotten": known(plan.forgotten),
        "needed_blobs": known(plan.needed_blobs),
        "unneeded_blobs": known(plan.unneeded_blobs),
        "pack_bytes": known(plan.pack_bytes),
        "packs": known(plan.packs.len() as u64),
        "freed_bytes": known(plan.freed_bytes()),
        "spared_packs": known(plan.spared_packs),
        "segments": known(plan.segments),
        "old_packs": known(plan.old_packs),
        "old_pack_bytes": known(plan.old_pack_bytes),
        "old_segments": known(plan.old_segments),
    })
}

pub(crate) fn pack_fate(fate: &PackFate) -> Value {
    json!({
        "type": "gc_pack",
        "pack": fate.pack.to_string(),
        "reason": pack_reason(fate.reason),
        "bytes": fate.bytes,
        "needed_bytes": fate.needed_bytes,
    })
}

pub(crate) fn pack_reason(reason: PackReason) -> &'static str {
    match reason {
        PackReason::Unneeded => "unneeded",
        PackReason::Sparse => "sparse",
        PackReason::Small => "small",
        PackReason::OldKeys => "old_keys",
        _ => "other",
    }
}

pub(crate) fn gc_report(report: &GcReport) -> Value {
    let fenced = |(series, number): &(String, u64)| json!({"series": series, "number": number});
    json!({
        "type": "gc",
        "number": (report.number > 0).then_some(report.number),
        "finished": report.finished,
        "packs_written": report.packs_written,
        "bytes_written": report.bytes_written,
        "packs_deleted": report.packs_deleted,
        "bytes_deleted": report.bytes_deleted,
        "segments_deleted": report.segments_deleted,
        "records_deleted": report.records_deleted,
        "old_packs": report.old_packs,
        "old_pack_bytes": report.old_pack_bytes,
        "old_segments": report.old_segments,
        "old_packs_left": report.old_packs_left,
        "rescued_blobs": report.rescued_blobs,
        "temporary_files": report.temporary_files,
        "fenced": report.fenced.iter().map(fenced).collect::<Vec<_>>(),
        "waiting": report.waiting.iter().map(waiting_for).collect::<Vec<_>>(),
        "left": report.left,
    })
}

fn waiting_for(writer: &WaitingFor) -> Value {
    json!({
        "registration": writer.registration,
        "series": writer.since.map(|_| &writer.series),
        "host": writer.since.map(|_| &writer.host),
        "since": writer.since.map(time),
    })
}

pub(crate) fn repair_step(step: &RepairStep) -> Value {
    json!({
        "type": "repair_step",
        "object": step.object,
        "problem": step.problem,
        "action": repair_action(step.action),
        "advice": step.advice,
        "unsupported": step.unsupported,
    })
}

fn repair_action(action: RepairAction) -> &'static str {
    match action {
        RepairAction::CopyObject => "copy_object",
        RepairAction::CopyBlobs => "copy_blobs",
        RepairAction::SealAgain => "seal_again",
        RepairAction::Delete => "delete",
        RepairAction::Salvage => "salvage",
        RepairAction::Describe => "describe",
        RepairAction::PublishList => "publish_list",
        RepairAction::Supersede => "supersede",
        RepairAction::FinishCollection => "finish_collection",
        RepairAction::Forget => "forget",
        RepairAction::Tombstone => "tombstone",
        RepairAction::Rewrite => "rewrite",
        RepairAction::None => "none",
        _ => "other",
    }
}

pub(crate) fn loss(loss: &SnapshotLoss) -> Value {
    let paths: Vec<_> =
        loss.paths.iter().map(|failure| json!({"path": failure.path, "reason": failure.reason})).collect();
    json!({
        "type": "loss",
        "snapshot": format!("{}#{}", loss.series, loss.number),
        "forgotten": loss.forgotten,
        "paths": paths,
    })
}

pub(crate) fn repair_plan(plan: &RepairPlan) -> Value {
    json!({
        "type": "repair_plan",
        "sound": plan.is_sound(),
        "due": plan.is_due(),
        "steps": plan.steps.len(),
        "lost": plan.lost.len(),
        "packs_read": plan.packs_read,
        "bytes_read": plan.bytes_read,
    })
}

pub(crate) fn repair_report(report: &RepairReport) -> Value {
    let number = |series: &str, number: u64| format!("{series}#{number}");
    let rewritten: Vec<_> = report
        .rewritten
        .iter()
        .map(|(series, old, new)| json!({"old": number(series, *old), "new": number(series, *new)}))
        .collect();
    let forgotten: Vec<_> = report.forgotten.iter().map(|(series, old)| number(series, *old)).collect();
    json!({
        "type": "repair",
        "complete": report.is_complete(),
        "objects_copied": report.objects_copied,
        "blobs_salvaged": report.blobs_salvaged,
        "blobs_copied": report.blobs_copied,
        "packs_written": report.packs_written,
        "segments_written": report.segments_written,
        "deleted": report.deleted,
        "rewritten": rewritten,
        "forgotten": forgotten,
        "undone": report.undone.len(),
        "left": report.left,
    })
}

pub(crate) fn stats(repository: &Repository, stats: &RepositoryStats) -> Value {
    let usage = |usage: Usage| json!({"objects": usage.objects, "bytes": usage.bytes});
    json!({
        "type": "stats",
        "id": repository.id().to_string(),
        "bytes": stats.bytes(),
        "series": stats.series,
        "packs": usage(stats.packs),
        "index": usage(stats.index),
        "snapshots": usage(stats.snapshots),
        "writers": usage(stats.writers),
        "others": usage(stats.others),
        "foreign": usage(stats.foreign),
    })
}

pub(crate) fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Folder => "folder",
        EntryKind::Symlink => "symlink",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
        EntryKind::CharDevice { .. } => "char_device",
        EntryKind::BlockDevice { .. } => "block_device",
        EntryKind::Unknown { .. } => "unknown",
        _ => "other",
    }
}

/// Text as it is; what isn't UTF-8 with replacements, and its bytes beside it.
fn bytes_field(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    if std::str::from_utf8(bytes).is_err() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        object.insert(format!("{name}_hex"), hex.into());
    }
    object.insert(name.to_owned(), String::from_utf8_lossy(bytes).into());
}

fn time(time: Timestamp) -> String {
    format!("{:.9}", jiff::Timestamp::from_nanosecond(time.as_nanos().into()).unwrap_or_default())
}

/// Seconds beyond the calendar, which a hostile file system may have, are shown as such.
fn file_time(time: FileTime) -> String {
    match jiff::Timestamp::new(time.seconds, 0)
        .and_then(|whole| whole.checked_add(jiff::SignedDuration::from_nanos(time.nanos.into())))
    {
        Ok(instant) => format!("{instant:.9}"),
        Err(_) => format!("{}.{:09}", time.seconds, time.nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nanoseconds() {
        assert_eq!(time(Timestamp::from_nanos(1)), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(file_time(FileTime { seconds: -1, nanos: 500_000_000 }), "1969-12-31T23:59:59.500000000Z");
        assert_eq!(file_time(FileTime { seconds: i64::MAX, nanos: 1 }), format!("{}.000000001", i64::MAX));
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let mut object = Map::new();
        bytes_field(&mut object, "path", b"caf\xe9");
        bytes_field(&mut object, "target", "caf\u{e9}".as_bytes());
        assert_eq!(Value::from(object), json!({"path": "caf\u{fffd}", "path_hex": "636166e9", "target": "caf\u{e9}"}));
    }
}
