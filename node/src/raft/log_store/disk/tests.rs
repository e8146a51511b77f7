//! The log across restarts, and with damage.

use openraft::EntryPayload;
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftLeaderId;

use super::*;
use crate::raft::types::{Data, Membership};

/// Small files and hardly a cache, so that a few entries see all of the log's life.
const SMALL: Limits = Limits { file_bytes: 400, cache_bytes: 300, cache_entries: 100 };

fn id(index: u64) -> LogId {
    LogId::new_term_index(1, index)
}

fn entry(index: u64, len: usize) -> Entry {
    Entry { log_id: id(index), payload: EntryPayload::Normal(Data(vec![7; len].into())) }
}

fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(|index| entry(index, 100)).collect()
}

async fn append(log: &DiskLog, entries: impl IntoIterator<Item = Entry>) {
    let (sender, written) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(sender)).unwrap();
    written.await.unwrap().unwrap();
}

/// Has the disk be full from now on.
fn fill(log: &DiskLog, sync: bool) {
    let mut log = log.lock();
    let files = Files::open(&log.directory, log.open_number(), sync).unwrap();
    log.writer = Writer::new(files.fill()).unwrap();
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == "wal")).collect();
    files.sort();
    files
}

fn cut(path: &Path, bytes: u64) {
    let len = fs::metadata(path).unwrap().len();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len - bytes).unwrap();
}

#[tokio::test]
async fn log_and_vote_are_there_after_a_restart() {
    for sync in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let vote = Vote { leader_id: RaftLeaderId::new(1, 1 << 47), committed: true };
        let log = DiskLog::open(directory.path(), sync).unwrap();
        log.save_vote(vote).await.unwrap();
        append(&log, entries(0..10)).await;
        drop(log);
        let log = DiskLog::open(directory.path(), sync).unwrap();
        assert_eq!(log.vote(), Some(vote));
        assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(0..10));
    }
}

#[tokio::test]
async fn entries_are_stored_once_the_disk_has_them() {
    for sync in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let log = DiskLog::open(directory.path(), sync).unwrap();
        let extent = log.extent();
        let marks = || (extent.marks().appended, extent.marks().stored);
        assert_eq!(marks(), (None, None));
        append(&log, entries(0..3)).await;
        assert_eq!(marks(), (Some(id(2)), Some(id(2))));

        fill(&log, sync);
        let (sender, written) = TypeConfig::oneshot();
        let appended = log.append(entries(3..5), IOFlushed::signal(sender));
        // Where another thread writes, it tells of it.
        assert!(appended.is_err() || written.await.unwrap().is_err());
        assert_eq!(marks(), (Some(id(4)), Some(id(2))));
    }
}

#[tokio::test]
async fn extent_follows_what_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let log = DiskLog::open(directory.path(), false).unwrap();
    let membership = EntryPayload::Membership(Membership::default());
    append(&log, entries(0..2)).await;
    append(&log, [Entry { log_id: id(2), payload: membership }, entry(3, 100)]).await;
    let extent = log.extent();
    let marks = || (extent.marks().appended, extent.marks().membership);
    assert_eq!(marks(), (Some(id(3)), Some(id(2))));
    log.truncate_after(Some(id(2))).unwrap();
    assert_eq!(marks(), (Some(id(2)), Some(id(2))));
    log.truncate_after(Some(id(1))).unwrap();
    assert_eq!(marks(), (Some(id(1)), None));
}

#[tokio::test]
async fn one_that_failed_to_write_is_a_log_up_to_there() {
    let directory = tempfile::tempdir().unwrap();
    let log = DiskLog::open(directory.path(), false).unwrap();
    append(&log, entries(0..3)).await;
    fill(&log, false);
    for next in 3..6 {
        let (sender, _written) = TypeConfig::oneshot();
        log.append([entry(next, 100)], IOFlushed::signal(sender)).unwrap_err();
    }
    drop(log);
    let log = DiskLog::open(directory.path(), false).unwrap();
    assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(0..3));
}

#[tokio::test]
async fn one_setting_reads_what_the_other_wrote() {
    let directory = tempfile::tempdir().unwrap();
    for (round, sync) in [true, false, true].into_iter().enumerate() {
        let log = DiskLog::open(directory.path(), sync).unwrap();
        append(&log, entries(round as u64 * 5..round as u64 * 5 + 5)).await;
    }
    let log = DiskLog::open(directory.path(), false).unwrap();
    assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(0..15));
}

#[tokio::test]
async fn reading_stops_at_the_bytes_that_are_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let log = DiskLog::open(directory.path(), false).unwrap();
    append(&log, entries(0..10)).await;
    assert_eq!(log.read(0, 10, 250).unwrap().len(), 3);
    assert_eq!(log.read(0, 10, 1).unwrap().len(), 1, "never none");
}

#[tokio::test]
async fn leader_of_the_same_term_replaces_a_vote_for_another() {
    let directory = tempfile::tempdir().unwrap();
    let log = DiskLog::open(directory.path(), false).unwrap();
    let vote = |node, committed| Vote { leader_id: RaftLeaderId::new(1, node), committed };
    log.save_vote(vote(9, false)).await.unwrap();
    log.save_vote(vote(2, true)).await.unwrap();
    assert_eq!(log.vote(), Some(vote(2, true)));
}

#[tokio::test]
async fn entries_of_closed_files_are_read_back_from_disk() {
    for sync in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let log = DiskLog::open_with(directory.path(), sync, SMALL).unwrap();
        for index in 0..20 {
            append(&log, [entry(index, 100)]).await;
        }
        assert!(files(directory.path()).len() > 4);
        assert!(log.lock().cached < 10, "most entries have left the memory");
        assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(0..20));
        drop(log);
        let log = DiskLog::open_with(directory.path(), sync, SMALL).unwrap();
        assert!(log.lock().cached < 10, "and were not all kept when they were read at start");
        assert_eq!(log.read(3, 17, usize::MAX).unwrap(), entries(3..17));
    }
}

#[tokio::test]
async fn purged_entries_leave_with_their_files() {
    for sync in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let vote = Vote { leader_id: RaftLeaderId::new(1, 7), committed: true };
        let log = DiskLog::open_with(directory.path(), sync, SMALL).unwrap();
        log.save_vote(vote).await.unwrap();
        append(&log, entries(0..20)).await;
        let before = files(directory.path()).len();
        log.purge(id(14)).unwrap();
        log.save_committed(Some(id(18)));
        append(&log, entries(20..21)).await;
        assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(15..21));
        drop(log);
        assert!(files(directory.path()).len() < before);
        let log = DiskLog::open_with(directory.path(), sync, SMALL).unwrap();
        assert_eq!(log.purged_and_last(), (Some(id(14)), Some(id(20))));
        assert_eq!((log.vote(), log.committed()), (Some(vote), Some(id(18))));
        assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(15..21));
    }
}

#[tokio::test]
async fn log_goes_on_after_a_purge_beyond_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let log = DiskLog::open_with(directory.path(), false, SMALL).unwrap();
    append(&log, entries(0..3)).await;
    log.purge(id(50)).unwrap();
    append(&log, entries(51..53)).await;
    drop(log);
    let log = DiskLog::open_with(directory.path(), false, SMALL).unwrap();
    assert_eq!(log.purged_and_last(), (Some(id(50)), Some(id(52))));
    assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(51..53));
}

#[tokio::test]
async fn truncated_entries_are_gone_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let log = DiskLog::open_with(directory.path(), false, SMALL).unwrap();
    append(&log, entries(0..10)).await;
    log.truncate_after(Some(id(4))).unwrap();
    let other = |index| Entry {
        log_id: LogId::new_term_index(2, index),
        payload: EntryPayload::Normal(Data(vec![9; 50].into())),
    };
    append(&log, (5..8).map(other)).await;
    drop(log);
    let log = DiskLog::open_with(directory.path(), false, SMALL).unwrap();
    let expected: Vec<_> = entries(0..5).into_iter().chain((5..8).map(other)).collect();
    assert_eq!(log.read(0, 100, usize::MAX).unwrap(), expected);
    log.truncate_after(None).unwrap();
    assert_eq!(log.purged_and_last(), (None, None));
}

#[tokio::test]
async fn second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _log = DiskLog::open(directory.path(), true).unwrap();
    let error = DiskLog::open(directory.path(), true).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn flipped_bit_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let log = DiskLog::open(directory.path(), true).unwrap();
    append(&log, entries(0..10)).await;
    drop(log);
    let path = files(directory.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    for at in [0, MAGIC.len() + 2, bytes.len() / 2, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        fs::write(&path, flipped).unwrap();
        let error = DiskLog::open(directory.path(), true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}: {error}");
    }
}

#[tokio::test]
async fn missing_file_is_found() {
    for missing in [0, 1] {
        let directory = tempfile::tempdir().unwrap();
        let log = DiskLog::open_with(directory.path(), false, SMALL).unwrap();
        append(&log, entries(0..10)).await;
        drop(log);
        fs::remove_file(&files(directory.path())[missing]).unwrap();
        let error = DiskLog::open_with(directory.path(), false, SMALL).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "file {missing}: {error}");
    }
}

#[tokio::test]
async fn record_cut_off_at_the_end_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let log = DiskLog::open(directory.path(), true).unwrap();
    append(&log, entries(0..10)).await;
    drop(log);
    cut(&files(directory.path())[0], 37);
    let log = DiskLog::open(directory.path(), true).unwrap();
    assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(0..9));
    append(&log, entries(9..12)).await;
    drop(log);
    let log = DiskLog::open(directory.path(), true).unwrap();
    assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(0..12), "what follows is whole");
}

#[tokio::test]
async fn record_cut_off_in_the_middle_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let log = DiskLog::open_with(directory.path(), false, SMALL).unwrap();
    append(&log, entries(0..10)).await;
    drop(log);
    cut(&files(directory.path())[0], 37);
    let error = DiskLog::open_with(directory.path(), false, SMALL).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}

#[tokio::test]
async fn file_without_its_head_is_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    let log = DiskLog::open_with(directory.path(), false, SMALL).unwrap();
    append(&log, entries(0..10)).await;
    drop(log);
    let next = files(directory.path()).len() as u64;
    for left in [0, 5, MAGIC.len() as u64, MAGIC.len() as u64 + 9] {
        let path = path_of(directory.path(), next);
        let mut head = MAGIC.to_vec();
        record::put(&Record::State(LogState::default()), &mut head);
        fs::write(&path, &head[..left as usize]).unwrap();
        let log = DiskLog::open_with(directory.path(), false, SMALL).unwrap();
        assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(0..10), "{left} bytes");
    }
}

#[tokio::test]
async fn begun_log_without_a_file_is_found_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = path_of(directory.path(), 0);
    let found = |what: &str| {
        let error = DiskLog::open_begun(directory.path(), true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}: {error}");
    };
    found("an empty directory");
    drop(DiskLog::open(directory.path(), true).unwrap());
    let head = fs::read(&path).unwrap();
    for left in 0..head.len() {
        fs::write(&path, &head[..left]).unwrap();
        found("a file without its head");
        assert_eq!(fs::read(&path).unwrap().len(), left);
    }
    fs::write(&path, &head).unwrap();
    assert_eq!(DiskLog::open_begun(directory.path(), true).unwrap().purged_and_last().1, None);
    fs::remove_dir_all(directory.path()).unwrap();
    found("no directory");
}

#[tokio::test]
async fn settled_log_has_stored_all_that_was_written() {
    for sync in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let log = DiskLog::open(directory.path(), sync).unwrap();
        let settler = log.settler();
        let (sender, written) = TypeConfig::oneshot();
        log.append(entries(0..10), IOFlushed::signal(sender)).unwrap();
        settler.settle().await.unwrap();
        let stored = tokio::time::timeout(std::time::Duration::ZERO, written).await;
        stored.expect("it was told before").unwrap().unwrap();
        let released = log.released();
        drop(log);
        assert!(released.is_cancelled(), "it does not keep the log open");
        assert!(settler.settle().await.is_err());
    }
}
