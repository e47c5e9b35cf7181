//! The names of the numbers.

/// What there is of something now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// Connections that are established.
    Connections,
    /// Requests on a connection that nginx is not done with.
    Active,
    /// Requests that nginx is done with and whose END_REQUEST has not come.
    Draining,
    /// Requests without a connection.
    Waiting,
}

/// What has happened so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Requests that got a place on a connection.
    Requests,
    /// Requests that nginx sent by connections of its own, since the application does not multiplex.
    Aside,
    /// Bytes written to connections.
    BytesSent,
    /// Bytes read from connections.
    BytesReceived,
    /// Requests that were aborted, those that stalled included.
    Aborts,
    /// How often a connection was not read because of one request.
    Stalls,
    /// Requests that were given up for that.
    StallAborts,
    /// Requests that the application refused unprocessed.
    Refusals,
    /// Connections that were established.
    Connects,
    /// Connections that could not be established.
    ConnectFailures,
    /// Shared connections that took no more requests while they were open.
    Retired,
    /// Requests that were kept from a connection to another application: always 0 but for a defect.
    Astray,
}

/// What an application said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Whether it takes several requests on a connection.
    Multiplexes,
    /// Whether it knows flow control.
    FlowControl,
    /// Whether it may turn a request into a tunnel.
    Upgrade,
}

impl Gauge {
    pub const ALL: [Self; 4] = [
        Self::Connections,
        Self::Active,
        Self::Draining,
        Self::Waiting,
    ];
}

impl Count {
    pub const ALL: [Self; 12] = [
        Self::Requests,
        Self::Aside,
        Self::BytesSent,
        Self::BytesReceived,
        Self::Aborts,
        Self::Stalls,
        Self::StallAborts,
        Self::Refusals,
        Self::Connects,
        Self::ConnectFailures,
        Self::Retired,
        Self::Astray,
    ];
}

impl Fact {
    pub const ALL: [Self; 3] = [Self::Multiplexes, Self::FlowControl, Self::Upgrade];
}
