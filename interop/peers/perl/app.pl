#!/usr/bin/perl
# Routes of afcgitest on Perl's FCGI, started by spawn-fcgi: so many processes, each with one connection at a time and one request at a
# time on that. PROCESSES=1: none but this one.
use strict;
use warnings;
use FCGI;
use Time::HiRes qw(sleep);

my $processes = $ENV{PROCESSES} // 8;

if ($processes == 1) {
    serve();
    exit 0;
}

my @children;
for (1 .. $processes) {
    my $child = fork // die "fork: $!";
    if ($child == 0) {
        serve();
        exit 0;
    }
    push @children, $child;
}
$SIG{TERM} = sub { kill 'TERM', @children; exit 0 };
wait for @children;

sub serve {
    my %env;
    binmode $_ for \*STDIN, \*STDOUT;
    my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%env, 0);
    while ($request->Accept >= 0) {
        answer($request, \%env);
        $request->Finish;
    }
}

sub answer {
    my ($request, $env) = @_;
    my $path = ($env->{SCRIPT_NAME} // '') . ($env->{PATH_INFO} // '');
    my %query = map { split /=/, $_, 2 } grep { /=/ } split /&/, $env->{QUERY_STRING} // '';
    if ($path eq '/echo') {
        my $body = '';
        1 while read STDIN, $body, 65536, length $body;
        print "Content-Type: application/octet-stream\r\nContent-Length: ", length $body, "\r\n\r\n", $body;
    } elsif ($path eq '/env') {
        print "Content-Type: text/plain\r\n\r\n", map { "$_=$env->{$_}\n" } sort keys %$env;
    } elsif ($path eq '/status') {
        print "Status: $query{code} Some reason\r\nContent-Type: text/plain\r\n\r\n";
        print "$query{code}\n" unless $query{code} =~ /^(204|304)$/;
    } elsif ($path eq '/events') {
        print "Content-Type: text/event-stream\r\n\r\n";
        for my $n (0 .. $query{n} - 1) {
            sleep $query{ms} / 1000 if $n;
            print "data: $n\n\n";
            $request->Flush;
        }
    } else {
        sleep $query{ms} / 1000 if $path eq '/delay';
        print STDERR "written by /stderr\n" if $path eq '/stderr';
        print "Content-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n";
    }
}
