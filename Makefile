# Rollcall's front door. Go and make are all it needs: every other tool is a
# Go module, run at the version pinned here or in go.mod.

BUF           := go run github.com/bufbuild/buf/cmd/buf@v1.75.0
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK   := go run golang.org/x/vuln/cmd/govulncheck@v1.9.0
GRPCURL       := go run github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4

PKG      ?= ./...
FUZZTIME ?= 10s
SEEDS    ?= 2000
FIRST    ?= 1
TIMES    ?= 20
SOAK     ?= 5m
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
RELEASED := proto/released.binpb
UNRACED  := services/simulation

# VERSION tells the commit. Go's own stamp would tell it again, and fail the
# build where git refuses to read the checkout (in a container, another user's).
export GOFLAGS := $(strip $(shell go env GOFLAGS 2>/dev/null) -buildvcs=false)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@echo 'make <target>, with PKG=./services/registry/... to narrow test, lint, fuzz and govulncheck'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/registry, bin/collector and bin/rollcall
	CGO_ENABLED=0 go build -trimpath -o bin/ \
	  -ldflags '-X github.com/rollcall-metrics/rollcall/services/internal/process.Version=$(VERSION)' ./services/cmd/...

# Not by go run, which dies of a SIGTERM without handing it on.
.PHONY: run
run: build ## Build, then run one registry and two collectors with their data in ./.run
	@go build -o bin/local ./deploy/local && exec bin/local

.PHONY: omicron
omicron: build ## Build, then play omicron issue 7124 on real processes: nobody is struck off (1 min)
	@go build -o bin/omicron ./deploy/omicron && exec bin/omicron

# A module of its own, so that the product's need not know what all of etcd needs.
bin/etcd: deploy/etcd/main.go deploy/etcd/go.mod deploy/etcd/go.sum
	cd deploy/etcd && CGO_ENABLED=0 go build -trimpath -o ../../bin/etcd .

.PHONY: soak
soak: bin/etcd ## Kill one of three registries or of three etcd members after the other for SOAK (5m), then all of etcd; lose a store
	go test -vet=off -count=1 -timeout 0 ./deploy/soak -run '^Test(Soak|EtcdAway|Recover|BackupRestored)$$' -v -duration $(SOAK) -away 60s

# Building runtime/cgo is the question whether the race detector works here: it
# needs a platform that has it, cgo, a C compiler and the C library's headers.
.PHONY: test
test: ## Vet and test, in random order, under the race detector where there is a C compiler
	@race=-race; \
	if ! go build -race runtime/cgo >/dev/null 2>&1; then \
	  race=; \
	  echo 'make test: THE RACE DETECTOR IS OFF: it needs CGO_ENABLED=1 and a C compiler with its headers' >&2; \
	  if [ "$$ROLLCALL_REQUIRE_ALL" = 1 ]; then echo 'make test: ROLLCALL_REQUIRE_ALL=1 requires it' >&2; exit 1; fi; \
	fi; \
	if [ -n "$$race" ] && go list $(PKG) | grep -q '$(UNRACED)$$'; then \
	  echo 'make test: $(UNRACED) runs without the race detector: that of Go 1.26 crashes (ThreadSanitizer: CHECK failed) on the timers of a large bubble' >&2; \
	fi; \
	set -ex; \
	go vet $$race $(PKG); \
	go list $(PKG) | grep -v '$(UNRACED)$$' | xargs -r go test -vet=off -shuffle=on $$race; \
	go list $(PKG) | grep '$(UNRACED)$$' | xargs -r go test -vet=off -shuffle=on

.PHONY: lint
lint: ## Lint Go and proto, and check their formatting
	$(GOLANGCI_LINT) run $(PKG)
	$(BUF) lint
	$(BUF) format --diff --exit-code

.PHONY: format
format: ## Format Go and proto
	$(GOLANGCI_LINT) fmt
	$(BUF) format --write

.PHONY: generate
generate: ## Format proto/ and generate gen/ from it
	$(BUF) format --write
	$(BUF) generate

.PHONY: check-generate
check-generate: ## Fail if gen/ is not what proto/ generates
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	$(BUF) generate --output "$$tmp" && \
	if ! diff -r gen "$$tmp/gen"; then \
	  echo 'make check-generate: gen/ is not what proto/ generates: run make generate and commit gen/' >&2; exit 1; \
	fi

.PHONY: breaking
breaking: ## Fail if proto/ breaks clients of the last release
	@if [ ! -f $(RELEASED) ]; then \
	  echo 'make breaking: $(RELEASED) is missing: make release-image writes it, at a release; commit it' >&2; exit 1; \
	fi
	$(BUF) breaking --against $(RELEASED)

.PHONY: release-image
release-image: ## At a release: write the image of proto/ that make breaking compares with
	$(BUF) build --exclude-source-info --output $(RELEASED)

# go test may fail with "context deadline exceeded" when FUZZTIME ends, though
# it found nothing (https://go.dev/issue/75804, mended in Go 1.27): such a
# target is run once more.
.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (10s)
	@log=$$(mktemp) || exit 1; trap 'rm -f "$$log"' EXIT; \
	fuzz() { \
	  echo "fuzz $$2 in $$1"; \
	  { go test -vet=off -run '^$$' -fuzz "^$$2\$$" -fuzztime $(FUZZTIME) "$$1" </dev/null 2>&1 || echo "FAILED: $$2 in $$1"; } | tee "$$log"; \
	  ! grep -q '^FAILED: ' "$$log"; \
	}; \
	ended() { grep -q '^ *context deadline exceeded$$' "$$log" && ! grep -q 'Failing input written' "$$log"; }; \
	list=$$(go test -vet=off -list '^Fuzz' $(PKG)) || { echo "$$list" >&2; exit 1; }; \
	targets=$$(echo "$$list" | awk '/^Fuzz/ {name[n++] = $$1} $$1 == "ok" {for (i = 0; i < n; i++) print $$2, name[i]; n = 0}'); \
	if [ -z "$$targets" ]; then echo 'make fuzz: no fuzz target in $(PKG)' >&2; exit 1; fi; \
	echo "$$targets" | { \
	  failed=0; \
	  while read -r pkg name; do \
	    fuzz "$$pkg" "$$name" || { ended && echo 'once more:' && fuzz "$$pkg" "$$name"; } || failed=1; \
	  done; \
	  exit $$failed; \
	}

.PHONY: simulate
simulate: ## Play SEEDS (2000) scripts of commands and faults from seed FIRST (1), and print how many of each
	@status=$$(mktemp) || exit 1; trap 'rm -f "$$status"' EXIT; \
	{ GOGC=400 go test -vet=off -count=1 -timeout 30m ./services/simulation -run '^TestSeeds$$' -v -seeds $(SEEDS) -first-seed $(FIRST); \
	  echo $$? >"$$status"; } | grep -v -e '^ *--- PASS' -e '^===' -e '^$$'; \
	exit "$$(cat "$$status")"

.PHONY: replay
replay: ## Play the script STORY, such as make simulate prints for a failure, TIMES (20) and tell how often it failed
	go test -vet=off -count=1 ./services/simulation -run '^TestReplay$$' -v -script '$(abspath $(STORY))' -times $(TIMES)

.PHONY: mutate
mutate: ## Apply each deliberate bug in services/simulation/testdata/mutations and see its test turn red
	go test -vet=off -count=1 -timeout 60m ./services/simulation -run '^TestMutations$$' -v -mutate

.PHONY: bench
bench: ## Run each benchmark of deploy/bench once
	go test -run '^$$' -bench . -benchtime 1x -timeout 30m ./deploy/bench/...

.PHONY: govulncheck
govulncheck: ## Look for known vulnerabilities (asks vuln.go.dev)
	$(GOVULNCHECK) $(PKG)

.PHONY: grpcurl
grpcurl: ## Run grpcurl: make grpcurl ARGS='-plaintext 127.0.0.1:7470 list'
	@$(GRPCURL) $(ARGS)

.PHONY: clean
clean: ## Remove what make built, and the data of make run
	rm -rf bin .run
