//! The connections of a pool, and how many there are of each sort.
//!
//! A connection is entered and taken out here and nowhere else, and so are the counts: whoever moves
//! one cannot forget to count it.

use super::config::Kind;

/// Names a connection of a pool. One that outlives its connection finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberId {
    slot: u32,
    generation: u32,
}

/// How far a connection is.
///
/// ```text
///  Opening ──> Asking ──> Ready ──┐                     (shared)
///     └──────> Idle <───> Busy ───┴──> Leaving ──> gone (one request at a time)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is being connected.
    Opening,
    /// The application is being asked on it.
    Asking,
    /// It takes requests, if it has room.
    Ready,
    /// It has no request and takes one.
    Idle,
    /// It has its request.
    Busy,
    /// It gets no more requests.
    Leaving,
}

#[derive(Debug)]
struct Entry<M> {
    generation: u32,
    /// `None`: the slot is free.
    used: Option<Used<M>>,
}

#[derive(Debug)]
struct Used<M> {
    kind: Kind,
    phase: Phase,
    member: Option<M>,
}

/// How many connections there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Shared ones that are being connected or asked.
    pub(super) asking: usize,
    /// Shared ones that take requests.
    pub(super) ready: usize,
    /// Those for one request at a time that are being connected.
    pub(super) opening: usize,
    /// Those without a request.
    pub(super) idle: usize,
    /// Those with one.
    pub(super) busy: usize,
}

impl Counts {
    /// All that carry one request at a time and may carry another one.
    pub(super) const fn singles(&self) -> usize {
        self.opening
            .saturating_add(self.idle)
            .saturating_add(self.busy)
    }

    fn of(&mut self, kind: Kind, phase: Phase) -> Option<&mut usize> {
        Some(match (kind, phase) {
            (_, Phase::Leaving) => return None,
            (Kind::Shared, Phase::Opening | Phase::Asking) => &mut self.asking,
            (Kind::Shared, _) => &mut self.ready,
            (_, Phase::Opening) => &mut self.opening,
            (_, Phase::Idle) => &mut self.idle,
            (_, _) => &mut self.busy,
        })
    }
}

#[derive(Debug)]
pub(super) struct Members<M> {
    entries: Vec<Entry<M>>,
    free: Vec<u32>,
    counts: Counts,
    /// Shared connections that take requests.
    ready: Vec<MemberId>,
    /// Those for one request at a time that have none; the one used last is at the end.
    idle: Vec<MemberId>,
}

impl<M: Clone> Members<M> {
    pub(super) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            counts: Counts {
                asking: 0,
                ready: 0,
                opening: 0,
                idle: 0,
                busy: 0,
            },
            ready: Vec::new(),
            idle: Vec::new(),
        }
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Enters a connection that is to be opened.
    pub(super) fn insert(&mut self, kind: Kind) -> MemberId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                used: None,
            });
            u32::try_from(self.entries.len().saturating_sub(1)).unwrap_or(u32::MAX)
        });
        let mut generation = 0;
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            generation = entry.generation;
            entry.used = Some(Used {
                kind,
                phase: Phase::Opening,
                member: None,
            });
        }
        self.count(kind, Phase::Opening, true);
        MemberId { slot, generation }
    }

    fn used(&self, id: MemberId) -> Option<&Used<M>> {
        let entry = self.entries.get(id.slot as usize)?;
        entry
            .used
            .as_ref()
            .filter(|_| entry.generation == id.generation)
    }

    fn used_mut(&mut self, id: MemberId) -> Option<&mut Used<M>> {
        let entry = self.entries.get_mut(id.slot as usize)?;
        entry
            .used
            .as_mut()
            .filter(|_| entry.generation == id.generation)
    }

    pub(super) fn kind(&self, id: MemberId) -> Option<Kind> {
        Some(self.used(id)?.kind)
    }

    pub(super) fn phase(&self, id: MemberId) -> Option<Phase> {
        Some(self.used(id)?.phase)
    }

    /// The connection itself, from when it is established.
    pub(super) fn get(&self, id: MemberId) -> Option<&M> {
        self.used(id)?.member.as_ref()
    }

    pub(super) fn establish(&mut self, id: MemberId, member: M) {
        if let Some(used) = self.used_mut(id) {
            used.member = Some(member);
        }
    }

    /// Moves a connection into another phase.
    pub(super) fn set(&mut self, id: MemberId, phase: Phase) {
        let Some(used) = self.used_mut(id) else {
            return;
        };
        let (kind, before) = (used.kind, used.phase);
        if before == phase {
            return;
        }
        used.phase = phase;
        self.leave(id, kind, before);
        self.count(kind, phase, true);
        match phase {
            Phase::Ready => self.ready.push(id),
            Phase::Idle => self.idle.push(id),
            Phase::Opening | Phase::Asking | Phase::Busy | Phase::Leaving => {}
        }
    }

    /// Takes a connection out that is no more, and says what it was.
    pub(super) fn remove(&mut self, id: MemberId) -> Option<(Kind, Phase)> {
        let used = self.used(id)?;
        let (kind, phase) = (used.kind, used.phase);
        let entry = self.entries.get_mut(id.slot as usize)?;
        entry.used = None;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.leave(id, kind, phase);
        Some((kind, phase))
    }

    fn leave(&mut self, id: MemberId, kind: Kind, phase: Phase) {
        self.count(kind, phase, false);
        match phase {
            Phase::Ready => self.ready.retain(|&other| other != id),
            Phase::Idle => self.idle.retain(|&other| other != id),
            Phase::Opening | Phase::Asking | Phase::Busy | Phase::Leaving => {}
        }
    }

    fn count(&mut self, kind: Kind, phase: Phase, more: bool) {
        if let Some(count) = self.counts.of(kind, phase) {
            *count = match more {
                true => count.saturating_add(1),
                false => count.saturating_sub(1),
            };
        }
    }

    /// Shared connections that take requests, the oldest first.
    pub(super) fn ready(&self) -> &[MemberId] {
        &self.ready
    }

    /// Connections without a request; the one used last is at the end.
    pub(super) fn idle(&self) -> &[MemberId] {
        &self.idle
    }

    /// The shared connections on which the application is being asked, or that are being opened for it.
    pub(super) fn asking(&self) -> Option<MemberId> {
        if self.counts.asking == 0 {
            return None;
        }
        self.all().find(|&id| {
            self.kind(id) == Some(Kind::Shared)
                && matches!(self.phase(id), Some(Phase::Opening | Phase::Asking))
        })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = MemberId> {
        (0..).zip(&self.entries).filter_map(|(slot, entry)| {
            entry.used.as_ref().map(|_| MemberId {
                slot,
                generation: entry.generation,
            })
        })
    }

    /// The counts, by counting.
    #[cfg(test)]
    pub(super) fn recount(&self) -> Counts {
        let mut counts = Counts::default();
        for used in self.entries.iter().filter_map(|entry| entry.used.as_ref()) {
            if let Some(count) = counts.of(used.kind, used.phase) {
                *count += 1;
            }
        }
        counts
    }
}
