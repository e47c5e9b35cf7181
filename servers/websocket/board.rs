//! The whiteboard: the strokes of everybody, and those who look at it.
//!
//! Everybody is sent what is on the board, and then each change, in the same order. Whoever reads too
//! slowly is sent the whole board again instead of what was missed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::{Message, Utf8Bytes, close_code};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::line::Line;

/// Bytes of a message from a client.
pub(crate) const MESSAGE: usize = 16 * 1024;

/// The board's size in its own units.
const SIZE: (u16, u16) = (1600, 1000);
/// Coordinates of a stroke, two for each point; a longer line is sent in several strokes.
const STROKE: usize = 400;
/// Points on the board; the oldest strokes go.
const POINTS: usize = 40_000;
/// Colours, the eraser being the last.
const COLOURS: u8 = 7;
/// The widest pen.
const WIDTH: u8 = 80;
/// Clients at a time.
const CLIENTS: usize = 500;
/// Changes that a client may be behind before it is sent the whole board.
const BEHIND: usize = 256;

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Stroke {
    /// Whose it is. Not believed.
    #[serde(default)]
    by: u64,
    colour: u8,
    width: u8,
    /// x, y, x, y, …
    points: Vec<u16>,
}

impl Stroke {
    fn is_valid(&self) -> bool {
        let (points, rest) = self.points.as_chunks::<2>();
        let inside = |&[x, y]: &[u16; 2]| x <= SIZE.0 && y <= SIZE.1;
        rest.is_empty()
            && (1..=STROKE / 2).contains(&points.len())
            && points.iter().all(inside)
            && self.colour < COLOURS
            && (1..=WIDTH).contains(&self.width)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Stroke(Stroke),
    Clear {},
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum News<'a> {
    Board {
        you: u64,
        here: usize,
        most: usize,
        strokes: &'a VecDeque<Stroke>,
    },
    Stroke(&'a Stroke),
    Here(usize),
    Clear {},
}

impl News<'_> {
    fn to_text(&self) -> Utf8Bytes {
        serde_json::to_string(self).unwrap_or_default().into()
    }
}

/// A clone is the same board.
#[derive(Clone, Debug)]
pub(crate) struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Whoever tells of a change holds it, so that what is told is in order.
    state: Mutex<State>,
    news: broadcast::Sender<Utf8Bytes>,
}

#[derive(Debug, Default)]
struct State {
    strokes: VecDeque<Stroke>,
    points: usize,
    here: usize,
    last: u64,
}

impl Default for Board {
    fn default() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            news: broadcast::Sender::new(BEHIND),
        }))
    }
}

impl Board {
    fn state_now(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, news: &News<'_>) {
        // An error is that nobody listens.
        let _ = self.0.news.send(news.to_text());
    }

    /// How much there is, as JSON.
    pub(crate) fn state(&self) -> Response {
        let now = self.state_now();
        let (here, strokes, points) = (now.here, now.strokes.len(), now.points);
        drop(now);
        let json = format!(r#"{{"here":{here},"strokes":{strokes},"points":{points}}}"#);
        ([(CONTENT_TYPE, "application/json")], json).into_response()
    }

    /// Serves a client until it leaves.
    pub(crate) async fn join(self, mut line: Line) {
        let Some(guest) = Guest::new(&self) else {
            line.close(close_code::AGAIN, "the board is full").await;
            return;
        };
        let (mut board, mut news) = self.whole(guest.id);
        if !line.send(Message::Text(board)).await {
            return;
        }
        loop {
            let text = tokio::select! {
                message = line.next() => match message {
                    None => return,
                    Some(message) => match self.take(guest.id, &message) {
                        Ok(()) => continue,
                        Err(why) => return line.close(close_code::POLICY, why).await,
                    },
                },
                text = news.recv() => match text {
                    Ok(text) => text,
                    Err(RecvError::Lagged(_)) => {
                        (board, news) = self.whole(guest.id);
                        board
                    }
                    Err(RecvError::Closed) => return,
                },
            };
            if !line.send(Message::Text(text)).await {
                return;
            }
        }
    }

    /// All that is on the board, and what comes after.
    fn whole(&self, you: u64) -> (Utf8Bytes, broadcast::Receiver<Utf8Bytes>) {
        let state = self.state_now();
        let board = News::Board {
            you,
            here: state.here,
            most: POINTS,
            strokes: &state.strokes,
        };
        (board.to_text(), self.0.news.subscribe())
    }

    /// Does what a client asks for; the error says what is wrong with it.
    fn take(&self, by: u64, message: &Message) -> Result<(), &'static str> {
        let said: Said = match message {
            Message::Text(text) => serde_json::from_str(text).map_err(|_| "no such message")?,
            _ => return Err("expected text"),
        };
        let mut state = self.state_now();
        match said {
            Said::Clear {} => {
                state.strokes.clear();
                state.points = 0;
                self.tell(&News::Clear {});
            }
            Said::Stroke(mut stroke) if stroke.is_valid() => {
                stroke.by = by;
                self.tell(&News::Stroke(&stroke));
                state.points += stroke.points.len() / 2;
                state.strokes.push_back(stroke);
                while state.points > POINTS
                    && let Some(oldest) = state.strokes.pop_front()
                {
                    state.points -= oldest.points.len() / 2;
                }
            }
            Said::Stroke(_) => return Err("no such stroke"),
        }
        Ok(())
    }
}

/// Somebody at the board, until this is dropped.
struct Guest<'a> {
    board: &'a Board,
    id: u64,
}

impl<'a> Guest<'a> {
    fn new(board: &'a Board) -> Option<Self> {
        let mut state = board.state_now();
        if state.here >= CLIENTS {
            return None;
        }
        state.here += 1;
        state.last += 1;
        board.tell(&News::Here(state.here));
        Some(Self {
            board,
            id: state.last,
        })
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let mut state = self.board.state_now();
        state.here -= 1;
        self.board.tell(&News::Here(state.here));
    }
}
