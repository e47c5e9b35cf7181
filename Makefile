# Two commands matter: `make run` and `make test`. Each installs what it lacks, and says what.

.PHONY: help run demo test module bench beside isolation hosts chaos clean

help:
	@echo 'make run      build everything, start nginx with the module on 127.0.0.1:8888 and afcgitest on 127.0.0.1:5000'
	@echo 'make demo     the demonstration alone, on 127.0.0.1:8888 or at LISTEN=HOST:PORT: a page of requests against connections. Needs Rust and nothing else'
	@echo 'make test     everything that CI runs: format, lints, documentation, tests, web servers'
	@echo 'make module   the nginx module alone: nginx/build/ngx_http_fastcgi_multiplex_module.so'
	@echo 'make bench    the measurements, with a dated record in bench/records/'
	@echo 'make beside   PHP-FPM, libfcgi, Perl and flup behind plain nginx, the module and the gateway: ROUNDS=, SECONDS_EACH=, RECORD='
	@echo 'make isolation whether one slow request can hurt the others: a measurement of ten minutes, with a record too'
	@echo 'make hosts    nginx before applications on several hosts (as root, in network namespaces), one of which is cut off'
	@echo 'make chaos    applications killed, stopped and restarted under checked requests: REQUESTS=, DURATION=, SEED=, CLIENTS=, RECORD='
	@echo 'make clean    remove what was built'

run:
	@scripts/run.sh

demo:
	@scripts/demo.sh $(if $(LISTEN),--listen "$(LISTEN)")

test:
	@scripts/test.sh

module:
	@scripts/module.sh

bench:
	@scripts/bench.sh

beside:
	@scripts/beside.sh

isolation:
	@scripts/isolation.sh

hosts:
	@scripts/hosts.sh

chaos:
	@scripts/chaos.sh

clean:
	@scripts/clean.sh
