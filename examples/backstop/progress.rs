//! How far a long operation is: a bar on a terminal, or a JSON object a second.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use backstop::{Error, Phase, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use tokio::task::JoinHandle;

use crate::arguments::Global;
use crate::trouble::chain;
use crate::{human, json};

/// Where the bar stands; there is at most one.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Between two JSON objects.
const PERIOD: Duration = Duration::from_secs(1);

const REDRAW: Duration = Duration::from_millis(100);

/// Does something that writes to the terminal without the bar in the way.
pub(crate) fn suspend<T>(write: impl FnOnce() -> T) -> T {
    BARS.suspend(write)
}

/// Shows progress until dropped.
pub(crate) struct Watch {
    state: Arc<State>,
    ticker: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(global: &Global) -> Self {
        let visible = !global.quiet && !global.json && io::stderr().is_terminal();
        let bar = visible.then(|| BARS.add(ProgressBar::no_length()));
        let state = Arc::new(State { bar, json: global.json, ..State::default() });
        if let Some(bar) = &state.bar {
            bar.set_style(style(&state.done, Shape::Open));
            bar.set_message(Phase::Preparing.to_string());
            bar.enable_steady_tick(REDRAW);
        }
        let ticker = (global.json && !global.quiet).then(|| tokio::spawn(tell(Arc::clone(&state))));
        Self { state, ticker }
    }

    /// What the operation reports to.
    pub(crate) fn progress(&self) -> Arc<dyn Progress> {
        Arc::clone(&self.state) as Arc<dyn Progress>
    }

    /// Whether anyone is shown it.
    pub(crate) fn is_shown(&self) -> bool {
        self.ticker.is_some() || self.state.bar.is_some()
    }

    /// What the operation is doing.
    pub(crate) fn phase(&self) -> Option<Phase> {
        self.state.phase()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(ticker) = &self.ticker {
            ticker.abort();
        }
        if let Some(bar) = &self.state.bar {
            bar.finish_and_clear();
        }
    }
}

/// What has been reported.
#[derive(Default)]
struct State {
    bar: Option<ProgressBar>,
    json: bool,
    phase: Mutex<Option<Phase>>,
    done: Arc<Done>,
    /// Whether the bar measures files rather than bytes.
    counted: AtomicBool,
    expected_files: AtomicU64,
    expected_bytes: AtomicU64,
}

/// What the current phase has done.
#[derive(Default)]
struct Done {
    /// Files, or in a check the repository's objects and entries.
    files: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
    checking: AtomicBool,
}

impl Done {
    fn count(&self) -> Option<String> {
        let (one, many) = if self.checking.load(Ordering::Relaxed) { ("object", "objects") } else { ("file", "files") };
        let count = self.files.load(Ordering::Relaxed);
        (count > 0).then(|| human::counted(count, one, many))
    }

    fn failed(&self) -> Option<String> {
        let failures = self.failures.load(Ordering::Relaxed);
        (failures > 0).then(|| format!("{} failed", human::count(failures)))
    }
}

/// What a bar measures.
#[derive(Clone, Copy)]
enum Shape {
    /// Nothing: the end isn't known.
    Open,
    Bytes,
    Count,
}

impl State {
    fn phase(&self) -> Option<Phase> {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> json::Progress {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        json::Progress {
            phase: self.phase(),
            files: read(&self.done.files),
            bytes: read(&self.done.bytes),
            expected_files: read(&self.expected_files),
            expected_bytes: read(&self.expected_bytes),
            failures: read(&self.done.failures),
        }
    }
}

impl Progress for State {
    fn phase(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Some(phase);
        for number in [&self.done.files, &self.done.bytes, &self.expected_files, &self.expected_bytes] {
            number.store(0, Ordering::Relaxed);
        }
        let checking = matches!(phase, Phase::CheckingStructure | Phase::CheckingData);
        self.done.checking.store(checking, Ordering::Relaxed);
        self.counted.store(false, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_style(style(&self.done, Shape::Open));
            bar.reset();
            bar.unset_length();
            bar.set_message(phase.to_string());
        }
    }

    fn expect(&self, files: u64, bytes: u64) {
        self.expected_files.store(files, Ordering::Relaxed);
        self.expected_bytes.store(bytes, Ordering::Relaxed);
        let Some(bar) = &self.bar else { return };
        let (shape, length) = match (files, bytes) {
            (0, 0) => return,
            (files, 0) => (Shape::Count, files),
            (_, bytes) => (Shape::Bytes, bytes),
        };
        self.counted.store(matches!(shape, Shape::Count), Ordering::Relaxed);
        bar.set_length(length);
        bar.set_style(style(&self.done, shape));
    }

    fn advance(&self, files: u64, bytes: u64) {
        self.done.files.fetch_add(files, Ordering::Relaxed);
        self.done.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(if self.counted.load(Ordering::Relaxed) { files } else { bytes });
        }
    }

    fn failed(&self, path: &Path, error: &Error) {
        self.done.failures.fetch_add(1, Ordering::Relaxed);
        let reason = chain(error).join(": ");
        let path = path.display().to_string();
        if self.json {
            print(&format!("{}\n", json::line(&json::failure(&path, &reason))));
        }
        let text = if reason.contains(&path) { reason } else { format!("{path}: {reason}") };
        suspend(|| drop(writeln!(io::stderr(), "warning: {}", human::visible(&text))));
    }
}

/// Prints where the operation stands, once a second where that has changed.
async fn tell(state: Arc<State>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.tick().await;
    let mut told = None;
    loop {
        ticks.tick().await;
        let now = state.snapshot();
        if told.as_ref() != Some(&now) {
            print(&format!("{}\n", json::line(&now.to_json())));
            told = Some(now);
        }
    }
}

/// Writes a whole line at once; if nobody reads it the operation goes on all the same.
fn print(line: &str) {
    let mut stdout = io::stdout().lock();
    drop(stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()));
}

/// A bar with the remaining time where the end is known, otherwise only what is done.
fn style(done: &Arc<Done>, shape: Shape) -> ProgressStyle {
    let template = match shape {
        Shape::Open => "{spinner} {msg}{done}{rate}{files}{failures}  {elapsed}",
        Shape::Bytes => "{msg}  {bar:24.cyan/dim} {percent:>3}%{done} of {total}{rate}{files}{failures}  {eta} left",
        Shape::Count => "{msg}  {bar:24.cyan/dim} {percent:>3}%{files} of {human_len}  {eta} left",
    };
    let plain = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let (for_files, for_failures) = (Arc::clone(done), Arc::clone(done));
    plain
        .progress_chars("━━─")
        .with_key("done", key(|state| (state.pos() > 0).then(|| human::bytes(state.pos()))))
        .with_key("total", |state: &ProgressState, to: &mut dyn fmt::Write| {
            to.write_str(&human::bytes(state.len().unwrap_or(0))).unwrap_or_default();
        })
        .with_key("rate", key(|state| (state.pos() > 0).then(|| rate(state))))
        .with_key("files", key(move |_| for_files.count()))
        .with_key("failures", key(move |_| for_failures.failed()))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast of a float saturates")]
fn rate(state: &ProgressState) -> String {
    format!("{}/s", human::bytes(state.per_sec() as u64))
}

/// A part of a bar, with space before it if it is there.
fn key(
    text: impl Fn(&ProgressState) -> Option<String> + Clone + Send + Sync + 'static,
) -> impl Fn(&ProgressState, &mut dyn fmt::Write) + Clone + Send + Sync + 'static {
    // A bar that can't be drawn is no reason to stop.
    move |state, to| text(state).map_or(Ok(()), |text| write!(to, "  {text}")).unwrap_or_default()
}
