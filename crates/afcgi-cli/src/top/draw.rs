//! The picture of a [`View`]: a line of what goes on, a line for each source, tables, and a line of keys.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::table::{Cell, Column, Group, Show, time};
use super::view::{Shown, View, Watched};

/// A source that takes longer than this is said to.
const SLOW: Duration = Duration::from_secs(1);

/// Characters that a name has at least, as long as there is a column to leave out.
const NAME: usize = 14;

const HELP: &[&str] = &[
    "q  Ctrl-C        quit",
    "up down  k j     move; PageUp PageDown Home End as well",
    "Tab              next table",
    "s S  right left  sort by the next column, by the one before",
    "r                reverse the order",
    "p                pause: nobody is asked",
    "+ -              ask less often, more often",
    "?                this help",
    "",
    "REQ/S IN/S OUT/S a second, between the last two answers; IN comes from the application",
    "HELD             requests that were given up and whose end has not come; bytes that wait for clients",
    "ABORT STALL FAIL requests given up, connections not read, connects that failed",
    "P50 P99          half, 99 % of the requests took so long at most",
    "QUEUE MAXQ       connections that wait for a process; the most that did",
    "SLOW FULL        slow requests; how often pm.max_children was reached",
    "TIME             how long the request has been running",
];

/// Colours, or none.
struct Styles {
    title: Style,
    head: Style,
    selected: Style,
    good: Style,
    bad: Style,
    warning: Style,
    old: Style,
}

impl Styles {
    fn new(colours: bool) -> Self {
        let colour = |colour| match colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        };
        Self {
            title: Style::new().add_modifier(Modifier::BOLD),
            head: colour(Color::Cyan).add_modifier(Modifier::UNDERLINED),
            selected: Style::new().add_modifier(Modifier::REVERSED),
            good: colour(Color::Green),
            bad: colour(Color::Red).add_modifier(Modifier::BOLD),
            warning: colour(Color::Yellow).add_modifier(Modifier::BOLD),
            old: Style::new().add_modifier(Modifier::DIM),
        }
    }
}

/// Lines from the top of an area down, as many as there is room for.
struct Page<'a, 'b> {
    frame: &'a mut Frame<'b>,
    area: Rect,
}

impl Page<'_, '_> {
    fn line(&mut self, line: Line<'_>) {
        if self.area.height > 0 {
            let row = Rect {
                height: 1,
                ..self.area
            };
            self.frame.render_widget(line, row);
            self.area.y += 1;
            self.area.height -= 1;
        }
    }
}

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, now: Instant) {
    let styles = Styles::new(view.colours);
    let mut area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    if height > 2 {
        area.height -= 1;
        let foot = Rect {
            y: area.y + area.height,
            height: 1,
            ..area
        };
        frame.render_widget(keys(view, width), foot);
    }
    let mut page = Page { frame, area };
    page.line(title(view, &styles));
    if view.help {
        page.line(Line::raw(""));
        for line in HELP {
            for part in wrap(line, width, 17) {
                page.line(Line::raw(part));
            }
        }
        return;
    }
    let groups = view.groups();
    let most = match groups.is_empty() {
        true => height,
        false => (height / 3).max(1),
    };
    for line in sources(view, &styles, width, most, now) {
        page.line(line);
    }
    let rows: Vec<_> = groups.iter().map(|group| view.rows(*group)).collect();
    let counts: Vec<_> = rows.iter().map(Vec::len).collect();
    let focus = view
        .focus()
        .and_then(|focus| groups.iter().position(|group| *group == focus));
    // A line above each, and one for its head.
    let room = usize::from(page.area.height).saturating_sub(2 * groups.len());
    let rooms = share(&counts, room, focus.unwrap_or_default());
    for (n, group) in groups.into_iter().enumerate() {
        page.line(Line::raw(""));
        let is_focus = focus == Some(n);
        table(
            &mut page, view, group, &rows[n], rooms[n], is_focus, &styles,
        );
    }
}

fn title(view: &View, styles: &Styles) -> Line<'static> {
    let count = view.sources.len();
    let failed = view.sources.iter().filter(|source| source.failed.is_some());
    let failed = failed.count();
    let mut text = format!(" every {}", humantime::format_duration(view.interval));
    if count > 1 {
        text += &format!(", {count} sources");
    }
    let left_out = view
        .sources
        .iter()
        .filter_map(|source| source.page.as_ref());
    let left_out: usize = left_out.map(|page| page.left_out).sum();
    if left_out > 0 {
        text += &format!(", {left_out} rows more than are kept");
    }
    let mut spans = vec![Span::styled("afcgi top", styles.title), Span::raw(text)];
    if failed > 0 {
        spans.push(Span::styled(
            format!(", {failed} without an answer"),
            styles.bad,
        ));
    }
    if view.paused {
        spans.push(Span::styled(", paused", styles.warning));
    }
    Line::from(spans)
}

fn keys(view: &View, width: usize) -> Line<'static> {
    let sort = view.focus().map_or(String::new(), |group| {
        let place = view.place(group);
        let by = match place.column {
            Some(at) => group.columns()[at].title,
            None => group.title(),
        };
        let is_name = place.column.is_none();
        let arrow = if place.reverse == is_name {
            '↓'
        } else {
            '↑'
        };
        format!(": {by}{arrow}")
    });
    let text = format!("q quit  s sort{sort}  r reverse  Tab table  p pause  +- interval  ? help");
    Line::styled(
        fit(&text, width, false),
        Style::new().add_modifier(Modifier::DIM),
    )
}

/// A line for each source, some for one without an answer; those come first if there is no room for all.
fn sources(
    view: &View,
    styles: &Styles,
    width: usize,
    most: usize,
    now: Instant,
) -> Vec<Line<'static>> {
    let mut all: Vec<(usize, &Watched)> = view.sources.iter().enumerate().collect();
    if all.len() > most {
        all.sort_by_key(|(n, source)| (source.failed.is_none(), *n));
    }
    let is_one = all.len() == 1;
    let mut lines = Vec::new();
    let mut hidden = 0;
    for (n, source) in all {
        let number = match is_one {
            true => String::new(),
            false => format!("{} ", n + 1),
        };
        let (style, text) = describe(source, styles, now);
        let text = format!("{number}{}: {text}", source.label);
        let parts = wrap(&text, width, number.len() + 2);
        let room = most.saturating_sub(lines.len() + usize::from(!is_one));
        if room == 0 {
            hidden += 1;
            continue;
        }
        let parts = parts.into_iter().take(room.min(6));
        lines.extend(parts.map(|part| Line::styled(part, style)));
    }
    if hidden > 0 {
        lines.push(Line::styled(format!("… and {hidden} more"), styles.old));
    }
    lines
}

fn describe(source: &Watched, styles: &Styles, now: Instant) -> (Style, String) {
    let since = |at: Instant| match now.duration_since(at).as_secs().max(1) {
        few @ 0..100 => format!("{few}s"),
        many => time(many as f64),
    };
    let slow = source.asked.filter(|at| now.duration_since(*at) >= SLOW);
    match (&source.failed, &source.page, slow) {
        (Some((why, at)), _, _) => (styles.bad, format!("no answer for {}: {why}", since(*at))),
        (None, _, Some(at)) => (styles.warning, format!("slow, asked {} ago", since(at))),
        (None, Some(page), None) => {
            let took = time(source.took.as_secs_f64());
            (styles.good, format!("{}, {took}", page.kind.name()))
        }
        (None, None, None) => (styles.old, String::from("asked")),
    }
}

/// How many rows each table gets: all get the same, and what one does not need the others have, the first choice before.
fn share(counts: &[usize], room: usize, first: usize) -> Vec<usize> {
    let each = room / counts.len().max(1);
    let mut rooms: Vec<_> = counts.iter().map(|count| (*count).min(each)).collect();
    let mut left = room - rooms.iter().sum::<usize>().min(room);
    let order = std::iter::once(first).chain(0..counts.len());
    for n in order.filter(|n| *n < counts.len()) {
        let more = (counts[n] - rooms[n]).min(left);
        rooms[n] += more;
        left -= more;
    }
    rooms
}

fn table(
    page: &mut Page<'_, '_>,
    view: &View,
    group: Group,
    rows: &[Shown<'_>],
    room: usize,
    is_focus: bool,
    styles: &Styles,
) {
    let place = view.place(group);
    let mut columns: Vec<(usize, &Column)> = group
        .columns()
        .iter()
        .enumerate()
        .filter(|(_, column)| column.width > 0)
        .collect();
    let numbers = view.sources.len() > 1;
    let all = usize::from(page.area.width).saturating_sub(if numbers { 3 } else { 0 });
    let left = |columns: &[(usize, &Column)]| {
        let taken: usize = columns.iter().map(|(_, column)| column.width + 1).sum();
        all.saturating_sub(taken)
    };
    // On a narrow terminal the last columns make room for the names.
    while left(&columns) < NAME && columns.len() > 1 {
        columns.pop();
    }
    let width = left(&columns);
    let selected = place.selected.min(rows.len().saturating_sub(1));
    let top = selected.saturating_sub(room.saturating_sub(1));
    let is_last = !group.keeps_end();

    let mut name = group.title().to_owned();
    if rows.len() > room && room > 0 {
        let part = format!("{}-{}/{}", top + 1, top + room, rows.len());
        name = match name.len() + 1 + part.len() <= width {
            true => format!("{name} {part}"),
            false => part,
        };
    }
    let head = |sorted: bool| match sorted && is_focus {
        true => styles
            .head
            .add_modifier(Modifier::REVERSED | Modifier::BOLD),
        false => styles.head,
    };
    let mut spans = Vec::new();
    if numbers {
        spans.push(Span::styled(" # ", styles.head));
    }
    let named = Span::styled(pad(&name, width, false), head(place.column.is_none()));
    if !is_last {
        spans.push(named.clone());
    }
    for (at, column) in &columns {
        let title = format!("{:>1$}", column.title, column.width);
        spans.push(Span::styled(" ", styles.head));
        spans.push(Span::styled(title, head(place.column == Some(*at))));
    }
    if is_last {
        spans.push(Span::styled(" ", styles.head));
        spans.push(named);
    }
    page.line(Line::from(spans));

    for (n, shown) in rows.iter().enumerate().skip(top).take(room) {
        let mut spans = Vec::new();
        if numbers {
            spans.push(Span::raw(format!("{:>2} ", shown.source + 1)));
        }
        let name = Span::raw(pad(&shown.row.name, width, group.keeps_end()));
        if !is_last {
            spans.push(name.clone());
        }
        for (at, column) in &columns {
            let cell = &shown.row.cells[*at];
            let text = cell.shown(column.show, column.width);
            let style = match is_alarming(column, cell) {
                true => styles.warning,
                false => Style::new(),
            };
            let text = format!(" {:>1$}", fit(&text, column.width, false), column.width);
            spans.push(Span::styled(text, style));
        }
        if is_last {
            spans.push(Span::raw(" "));
            spans.push(name);
        }
        let style = match (shown.is_old, is_focus && n == selected) {
            (_, true) => styles.selected,
            (true, false) => styles.old,
            (false, false) => Style::new(),
        };
        page.line(Line::from(spans).style(style));
    }
}

/// What one would look at.
fn is_alarming(column: &Column, cell: &Cell) -> bool {
    let waits = matches!(column.key, "waiting" | "queue");
    match cell {
        Cell::Count(count) => {
            let long = column.show == Show::Microseconds && *count >= 1_000_000;
            (waits && *count > 0) || long
        }
        Cell::Real(rate) => column.key == "server_errors_per_second" && *rate > 0.0,
        Cell::Unknown | Cell::Text(_) => false,
    }
}

fn width_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// A text in so many columns, without its end or its beginning if it is longer.
fn fit(text: &str, width: usize, keep_end: bool) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let mut buffer = [0; 4];
    let mut take = |c: &char| {
        let wide = width_of(c.encode_utf8(&mut buffer));
        let fits = wide <= room;
        room = if fits { room - wide } else { 0 };
        fits
    };
    if width == 0 {
        return String::new();
    }
    if keep_end {
        let mut end: Vec<char> = text.chars().rev().take_while(&mut take).collect();
        end.push('…');
        return end.into_iter().rev().collect();
    }
    let mut begin: String = text.chars().take_while(&mut take).collect();
    begin.push('…');
    begin
}

/// The same, filled up with spaces.
fn pad(text: &str, width: usize, keep_end: bool) -> String {
    let mut text = fit(text, width, keep_end);
    let missing = width.saturating_sub(width_of(&text));
    text.extend(std::iter::repeat_n(' ', missing));
    text
}

/// A text in lines; all but the first are moved to the right.
fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let indent = if indent + 20 > width { 0 } else { indent };
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        // A word with the spaces before it.
        let spaces = rest.len() - rest.trim_start_matches(' ').len();
        let end = rest[spaces..]
            .find(' ')
            .map_or(rest.len(), |end| spaces + end);
        let (word, behind) = rest.split_at(end);
        rest = behind;
        if width_of(&line) + width_of(word) <= width {
            line += word;
            continue;
        }
        if !line.trim().is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        line = format!("{:indent$}{}", "", word.trim_start_matches(' '));
        // A word that is longer than a line.
        while width > indent && width_of(&line) > width {
            let part = line.chars();
            let mut room = width;
            let cut: usize = part
                .take_while(|c| {
                    let wide = width_of(c.encode_utf8(&mut [0; 4]));
                    let fits = wide <= room;
                    room = room.saturating_sub(wide);
                    fits
                })
                .map(char::len_utf8)
                .sum();
            if cut <= indent {
                break;
            }
            let behind = line.split_off(cut);
            lines.push(std::mem::replace(
                &mut line,
                format!("{:indent$}{behind}", ""),
            ));
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests;
