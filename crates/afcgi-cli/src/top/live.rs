//! The live view: the terminal, the keyboard, and a task for each source, so that none holds up another, or the keys.
//!
//! The terminal is put in order on every way out: by the guard [`Screen`], before a panic is told, and before the process stops
//! (SIGTSTP). The keyboard has a thread of its own.

use std::io::{self, IsTerminal, Stdout};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal as Raised, raise};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::Rect;
use rustix::process::{Signal, getpgrp, getpid, getsid, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::draw::draw;
use super::source::{Poll, Source};
use super::view::{Act, View};
use crate::terminal::{self, Ending};

/// What waits between the tasks and the view: keys, and news of sources.
const QUEUE: usize = 64;
/// How often ages are drawn anew.
const TICK: Duration = Duration::from_secs(1);
/// How often the keyboard's thread looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(250);

/// What a source's task tells.
enum News {
    Asked(usize, Instant),
    Polled(usize, Box<Poll>),
}

/// How often to ask; `None`: not at all.
type Pace = Option<Duration>;

/// Shows it until somebody has seen enough.
pub(super) fn run(sources: Vec<Source>, interval: Duration) -> io::Result<bool> {
    if !io::stdout().is_terminal() {
        return Err(io::Error::other(
            "the live view needs a terminal: --once prints a table, --once --json is for scripts",
        ));
    }
    // Before any signal handler.
    let terminal = terminal::Terminal::of_this_process();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let ending = Ending::new(terminal)?;
        show(sources, interval, ending).await
    });
    // The keyboard's thread, or a name that is looked up, would be waited for.
    runtime.shutdown_background();
    result.map(|()| true)
}

async fn show(sources: Vec<Source>, interval: Duration, mut ending: Ending) -> io::Result<()> {
    let signals = |which: Signal| signal(SignalKind::from_raw(which.as_raw()));
    let (mut stop, mut resume) = (signals(Signal::TSTP)?, signals(Signal::CONT)?);
    let labels = sources.iter().map(|source| source.label.clone()).collect();
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut view = View::new(labels, interval, colours);
    let (pace, paces) = watch::channel(Some(interval));
    let (tell, mut news) = mpsc::channel(QUEUE);
    for (n, source) in sources.into_iter().enumerate() {
        tokio::spawn(watch_source(n, source, paces.clone(), tell.clone()));
    }
    let mut screen = Screen::enter()?;
    let mut keys = keyboard();
    let mut tick = tokio::time::interval(TICK);
    loop {
        let now = Instant::now();
        screen.terminal.draw(|frame| draw(frame, &view, now))?;
        tokio::select! {
            biased;
            () = ending.wait() => return Ok(()),
            Some(()) = stop.recv() => {
                screen.suspend()?;
            }
            // Whoever had the terminal in the meantime has left it otherwise.
            Some(()) = resume.recv() => screen.again()?,
            key = keys.recv() => match key {
                Some(Ok(event)) => match act(&mut view, &event) {
                    Act::Nothing => {}
                    Act::Quit => return Ok(()),
                    Act::Suspend => stop_all(),
                    Act::Pace => {
                        let next = (!view.paused).then_some(view.interval);
                        pace.send_replace(next);
                    }
                },
                Some(Err(error)) => return Err(error),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            },
            Some(told) = news.recv() => {
                let mut next = Some(told);
                // What came in the meantime is one picture.
                while let Some(told) = next {
                    hear(&mut view, told);
                    next = news.try_recv().ok();
                }
            }
            _ = tick.tick() => {}
        }
    }
}

fn act(view: &mut View, event: &Event) -> Act {
    match event {
        Event::Key(key) => view.key(*key),
        // The next picture has the new size.
        _ => Act::Nothing,
    }
}

fn hear(view: &mut View, news: News) {
    match news {
        News::Asked(n, at) => view.sources[n].asked = Some(at),
        News::Polled(n, poll) => view.sources[n].take(*poll),
    }
}

/// Asks a source at the pace that is set, as long as there is a view.
async fn watch_source(
    n: usize,
    source: Source,
    mut paces: watch::Receiver<Pace>,
    tell: mpsc::Sender<News>,
) {
    loop {
        let asked = Instant::now();
        if tell.send(News::Asked(n, asked)).await.is_err() {
            return;
        }
        let poll = Box::new(source.poll().await);
        if tell.send(News::Polled(n, poll)).await.is_err() {
            return;
        }
        loop {
            let pace = *paces.borrow_and_update();
            let due = async {
                match pace {
                    Some(interval) => tokio::time::sleep_until((asked + interval).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => break,
                changed = paces.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// The events of the keyboard, from a thread of its own.
fn keyboard() -> mpsc::Receiver<io::Result<Event>> {
    let (tell, keys) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        loop {
            let event = match event::poll(LOOK) {
                Ok(false) if tell.is_closed() => return,
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let failed = event.is_err();
            if tell.blocking_send(event).is_err() || failed {
                return;
            }
        }
    });
    keys
}

/// What Ctrl-Z does outside of raw mode. The first process of a terminal has nobody to have it go on.
fn stop_all() {
    if getsid(None).is_ok_and(|session| session != getpid()) {
        _ = kill_process_group(getpgrp(), Signal::TSTP);
    }
}

/// The terminal while the view has it.
struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    fn enter() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            before(panic);
        }));
        let screen = Self {
            terminal: Terminal::new(CrosstermBackend::new(io::stdout()))?,
        };
        enter()?;
        Ok(screen)
    }

    /// Gives the terminal back, stops this process, and takes the terminal again when it goes on.
    fn suspend(&mut self) -> io::Result<()> {
        leave();
        // To this thread, which then does not run on before the process stands.
        raise(Raised::SIGSTOP)?;
        self.again()
    }

    /// Takes the terminal anew, whatever its state is.
    fn again(&mut self) -> io::Result<()> {
        _ = disable_raw_mode();
        enter()?;
        // Has all of it drawn. `Terminal::clear` would ask the terminal where its cursor is, and the answer comes by the keyboard.
        let size = self.terminal.size()?;
        self.terminal
            .resize(Rect::new(0, 0, size.width, size.height))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Hide)
}

/// A terminal that is gone needs nothing.
fn leave() {
    _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    _ = disable_raw_mode();
}
