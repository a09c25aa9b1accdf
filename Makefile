# Rollcall's front door. Go and make are all it needs: every other tool is a
# Go module, run at the version pinned here or in go.mod.

BUF           := go run github.com/bufbuild/buf/cmd/buf@v1.75.0
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK   := go run golang.org/x/vuln/cmd/govulncheck@v1.9.0
GRPCURL       := go run github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4

PKG      ?= ./...
FUZZTIME ?= 10s
RPCTIME  ?= $(FUZZTIME)
SEEDS    ?= 2000
FIRST    ?= 1
TIMES    ?= 20
SOAK     ?= 5m
FLEETS   ?= 3
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT   ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
RELEASED := proto/released.binpb
UNRACED  := services/simulation

# Go's own stamp would tell the commit again, and fail the build where git
# refuses to read the checkout (in a container, another user's).
export GOFLAGS := $(strip $(shell go env GOFLAGS 2>/dev/null) -buildvcs=false)

PROCESS  := github.com/rollcall-metrics/rollcall/services/internal/process
STAMP    := -X $(PROCESS).Version=$(VERSION) -X $(PROCESS).Commit=$(COMMIT)

# As in the images (deploy/images/catalog.go). Tests run without: they show the same.
TAGS     := grpcnotrace

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@echo 'make <target>, with PKG=./services/registry/... to narrow test, lint, fuzz and govulncheck'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/registry, bin/collector, bin/producer and bin/rollcall
	CGO_ENABLED=0 go build -trimpath -tags '$(TAGS)' -o bin/ \
	  -ldflags '$(STAMP)' ./services/cmd/...

# A module of its own, so that the product's need not know what images need.
# Everything in an image bears the time of the commit, so that whoever builds
# the commit again gets the same digest.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
TAG               ?= dev
ARCH              ?= $(shell go env GOARCH)

.PHONY: images
images: ## Build the container images (ONLY=registry,cli for some) into bin/images, and load them into docker where it answers
	@cd deploy/images && CGO_ENABLED=0 go build -trimpath -o ../../bin/builder .
	@bin/builder -out bin/images -tag '$(TAG)' -version '$(VERSION)' -commit '$(COMMIT)' -epoch '$(SOURCE_DATE_EPOCH)' -arch '$(ARCH)' -only '$(ONLY)'

.PHONY: test-images
test-images: ## Look into the images, build them twice, run one, and check the compose files
	cd deploy/images && go test -count=1 -timeout 30m .

COMPOSE ?= deploy/compose.yaml
PROJECT ?= rollcall
export ROLLCALL_TAG := $(TAG)

.PHONY: up
up: build ## Run Rollcall in containers (COMPOSE=deploy/compose.fleet.yaml: a fleet), and wait until it works
	@for name in registry collector producer cli example etcd; do \
	  docker image inspect "rollcall/$$name:$(TAG)" >/dev/null 2>&1 || { $(MAKE) images; break; }; \
	done
	@deploy/up.sh '$(COMPOSE)' '$(PROJECT)'

.PHONY: down
down: ## Remove the containers, networks and volumes of make up
	@deploy/down.sh '$(PROJECT)'

# Not by go run, which dies of a SIGTERM without handing it on.
.PHONY: run
run: build ## Build, then run one registry and two collectors with their data in ./.run
	@go build -o bin/local ./deploy/local && exec bin/local

.PHONY: omicron
omicron: build ## Build, then play omicron issue 7124 on real processes: nobody is struck off (1 min)
	@go build -o bin/omicron ./deploy/omicron && exec bin/omicron

# A module of its own, so that the product's need not know what all of etcd needs.
bin/etcd:    etcd_package := .
bin/etcdctl: etcd_package := go.etcd.io/etcd/etcdctl/v3
bin/etcdutl: etcd_package := go.etcd.io/etcd/etcdutl/v3
bin/etcd bin/etcdctl bin/etcdutl: deploy/etcd/main.go deploy/etcd/go.mod deploy/etcd/go.sum
	cd deploy/etcd && CGO_ENABLED=0 go build -trimpath -o ../../$@ $(etcd_package)

.PHONY: etcd
etcd: bin/etcd bin/etcdctl bin/etcdutl ## Build etcd and its tools in bin/, at the version that the registry embeds

.PHONY: soak
soak: build etcd images ## Kill one of three registries or of three etcd members after the other for SOAK (5m), then all of etcd; lose a store; kill collectors and receivers for 10m, throttle one for 5m
	go test -vet=off -count=1 -timeout 0 ./deploy/soak -run '^Test(Soak|EtcdAway|Recover|BackupRestored)$$' -v -duration $(SOAK) -away 60s
	cd deploy/e2e && go test -vet=off -count=1 -tags e2e -timeout 0 -parallel $(FLEETS) ./containers -v -partition 10m -loss 5m -kills 10
	go test -vet=off -count=1 -timeout 0 ./deploy/delivery -run '^Test(Outage|Throttled|Kills)$$' -v -kills 10m -throttled 5m

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
	log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	{ go list $(PKG) | grep -v '$(UNRACED)$$' | xargs -r go test -vet=off -shuffle=on -timeout 20m $$race 2>&1 || echo 'make test: some failed'; } | tee "$$log"; \
	if grep -q '^make test: some failed$$' "$$log"; then \
	  grep -q -e '^SIGSEGV: segmentation violation$$' -e 'ThreadSanitizer: CHECK failed' "$$log" || exit 1; \
	  echo 'make test: THE RACE DETECTOR CRASHED (as above), so what failed is run once more' >&2; \
	  awk -F '\t' '$$1 == "FAIL" && $$2 != "" {print $$2}' "$$log" | awk '{print $$1}' | sort -u | xargs -r go test -vet=off -shuffle=on -timeout 20m $$race; \
	fi; \
	go list $(PKG) | grep '$(UNRACED)$$' | xargs -r go test -vet=off -shuffle=on -timeout 20m

# A module of its own, so that the product's need not know what the receivers need.
# make images builds what changed only; go's cache knows. Without docker the tests
# in containers skip, or fail with ROLLCALL_REQUIRE_ALL=1.
.PHONY: e2e
e2e: build images ## Send to real receivers of other projects; kill, pause, cut, fill and upgrade real containers, and look at what was collected (12 min)
	cd deploy/e2e && go test -vet=off -count=1 .
	cd deploy/e2e && go test -vet=off -count=1 -tags e2e -timeout 25m -parallel $(FLEETS) ./containers -tag '$(TAG)' $(E2E)

# A module of its own, so that the product's need not know what Kubernetes's types need.
.PHONY: manifests
manifests: build ## Check the Kubernetes files: types, selectors, network policies, flags
	cd deploy/kubernetes && go test -count=1 ./...

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
# target is run again, up to 4 times. What FuzzRPC covers varies from run to run with the
# goroutines of gRPC: without a bound it would spend all its time on making inputs
# smaller.
.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (10s), and that of all RPCs for RPCTIME
	@log=$$(mktemp) || exit 1; trap 'rm -f "$$log"' EXIT; \
	fuzz() { \
	  echo "fuzz $$2 in $$1"; \
	  time=$(FUZZTIME); [ "$$2" != FuzzRPC ] || time='$(RPCTIME) -fuzzminimizetime 10x'; \
	  { go test -vet=off -run '^$$' -fuzz "^$$2\$$" -fuzztime $$time "$$1" </dev/null 2>&1 || echo "FAILED: $$2 in $$1"; } | tee "$$log"; \
	  ! grep -q '^FAILED: ' "$$log"; \
	}; \
	ended() { grep -q '^ *context deadline exceeded$$' "$$log" && ! grep -q 'Failing input written' "$$log"; }; \
	dirs=$$(go list -f '{{.Dir}}' $(PKG)) || exit 1; \
	pkgs=$$(for dir in $$dirs; do if grep -q -s '^func Fuzz' "$$dir"/*_test.go; then echo "$$dir"; fi; done); \
	list=$$(go test -vet=off -list '^Fuzz' $${pkgs:-$(PKG)}) || { echo "$$list" >&2; exit 1; }; \
	targets=$$(echo "$$list" | awk '/^Fuzz/ {name[n++] = $$1} $$1 == "ok" {for (i = 0; i < n; i++) print $$2, name[i]; n = 0}'); \
	if [ -z "$$targets" ]; then echo 'make fuzz: no fuzz target in $(PKG)' >&2; exit 1; fi; \
	echo "$$targets" | { \
	  failed=0; \
	  while read -r pkg name; do \
	    for again in 1 2 3 4 ''; do \
	      if fuzz "$$pkg" "$$name"; then break; fi; \
	      if [ -z "$$again" ] || ! ended; then failed=1; break; fi; \
	      echo 'once more:'; \
	    done; \
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
bench: ## Run each benchmark of deploy/bench and deploy/delivery once
	go test -run '^$$' -bench . -benchtime 1x -timeout 30m -p 1 ./deploy/bench/... ./deploy/delivery

.PHONY: govulncheck
govulncheck: ## Look for known vulnerabilities (asks vuln.go.dev)
	$(GOVULNCHECK) $(PKG)

.PHONY: grpcurl
grpcurl: ## Run grpcurl: make grpcurl ARGS='-plaintext 127.0.0.1:7470 list'
	@$(GRPCURL) $(ARGS)

.PHONY: clean
clean: ## Remove what make built, the data of make run, and the certificates of make up
	rm -rf bin .run deploy/certificates
