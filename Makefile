# Targets for building, testing and measuring Slips. "make help" lists them.
# Go alone is enough for all but race (a C compiler too), lint (which installs
# its linter through the Go module proxy) and ci.

SHELL := /bin/bash
.SHELLFLAGS := -eo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO ?= go
LINT_VERSION := 2.11.4
LINT = $(shell $(GO) env GOPATH)/bin/golangci-lint
# The packages with goroutines of their own, or that others call from many.
RACE ?= ./profiler/... ./parsers/... ./alerts/... ./cmd/... ./config/... ./zeekscripts/... ./internal/service/...
FUZZTIME ?= 10s
BENCH_DIR ?= bench-out
BENCH_ROUNDS ?= 3
PLATFORMS := linux/amd64 linux/arm64 darwin/arm64
GENERATED := docs/modules.md
DATASETS ?= $(or $(SLIPS_DATASETS),../shared/datasets)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: ## the program ./slips, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o slips ./cmd/slips

.PHONY: test
test: ## all tests; needs nothing but Go
	CGO_ENABLED=0 $(GO) test ./...

.PHONY: race
race: ## tests under the race detector, where it matters; needs a C compiler
	CGO_ENABLED=1 $(GO) test -race -short -timeout 20m $(RACE)

.PHONY: lint
lint: lint-install ## golangci-lint and go vet
	$(GO) vet ./...
	$(LINT) run ./...

.PHONY: lint-install
lint-install: ## the linter, unless it is there in the right version (about 5 minutes)
	@if [[ "$$($(LINT) version 2>/dev/null || true)" != *"version $(LINT_VERSION) "* ]]; then \
		echo "installing golangci-lint v$(LINT_VERSION)"; \
		$(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$(LINT_VERSION); \
	fi

.PHONY: fmt
fmt: lint-install ## format all code
	$(LINT) fmt ./...

.PHONY: generate
generate: ## write the generated documents anew
	@mkdir -p docs
	$(GO) run ./cmd/slips modules --markdown > docs/.modules.md || { rm docs/.modules.md; exit 1; }
	mv docs/.modules.md docs/modules.md

.PHONY: check-generated
check-generated: generate ## fail if the generated documents in git are not current
	@if [[ -n "$$(git status --porcelain -- $(GENERATED))" ]]; then \
		git --no-pager diff -- $(GENERATED); \
		echo "$(GENERATED): not what \"make generate\" writes, or not committed"; exit 1; \
	fi

.PHONY: eval
eval: build ## the verdicts against the truth about DATASETS (../shared/datasets), into docs/evaluation.md
	@if [[ ! -f $(DATASETS)/ground_truth.json ]]; then \
		echo "NOT EVALUATED: there is no $(DATASETS)/ground_truth.json; DATASETS or SLIPS_DATASETS names another place"; \
	else \
		./slips eval --truth $(DATASETS)/ground_truth.json --sweep --markdown > docs/.evaluation.md || { rm docs/.evaluation.md; exit 1; }; \
		mv docs/.evaluation.md docs/evaluation.md; \
		./slips eval --truth $(DATASETS)/ground_truth.json; \
	fi

.PHONY: compare-zeek
compare-zeek: ## the built-in meter against Zeek's logs in DATASETS; SLIPS_ZEEK=zeek runs that one too (10 minutes)
	@if [[ -z "$$SLIPS_ZEEK" ]] && command -v zeek > /dev/null; then export SLIPS_ZEEK=$$(command -v zeek); fi; \
	SLIPS_DATASETS=$(abspath $(DATASETS)) CGO_ENABLED=0 $(GO) test -count=1 -timeout 60m -v -run TestCompareZeek ./internal/agree

.PHONY: bench-packets
bench-packets: ## packets/s of the built-in meter, and of Zeek where SLIPS_ZEEK names one
	@if [[ -z "$$SLIPS_ZEEK" ]] && command -v zeek > /dev/null; then export SLIPS_ZEEK=$$(command -v zeek); fi; \
	SLIPS_DATASETS=$(abspath $(DATASETS)) CGO_ENABLED=0 $(GO) test -run '^$$' -bench 'Zeek|Read|Flood' -benchtime 1x -cpu 1 -timeout 30m ./parsers/packet

.PHONY: bench-block
bench-block: ## blocks/s, beside the program nft; needs root
	CGO_ENABLED=0 $(GO) test -run '^$$' -bench . -benchtime 10x -timeout 10m ./alerts/block/nft

.PHONY: fuzz-smoke
fuzz-smoke: ## every fuzz target for FUZZTIME (10s)
	@list=$$($(GO) test -list '^Fuzz' ./...); \
	names=(); n=0; \
	while read -r first second _; do \
		case "$$first" in \
		Fuzz*) names+=("$$first") ;; \
		ok) for name in "$${names[@]}"; do \
				echo "== $$second $$name"; \
				if ! out=$$(CGO_ENABLED=0 $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$second" 2>&1); then \
					echo "$$out"; \
					[[ "$$out" == *"context deadline exceeded"* && "$$out" != *"Failing input written"* ]] || exit 1; \
					echo "(the fuzzer ran out of time while it stopped, and found nothing)"; \
				else tail -n 2 <<< "$$out"; fi; \
				n=$$((n+1)); \
			done; \
			names=() ;; \
		esac; \
	done <<< "$$list"; \
	echo "$$n fuzz targets"; [[ $$n -gt 0 ]]

.PHONY: bench
bench: ## Go benchmarks, six times each, for benchstat
	$(GO) test -run '^$$' -bench . -benchmem -count 6 ./...

.PHONY: bench-tools
bench-tools: build ## what the two targets below use
	@mkdir -p $(BENCH_DIR)
	$(GO) build -o $(BENCH_DIR)/bench ./cmd/bench

.PHONY: bench-e2e
bench-e2e: bench-tools ## slips against the baselines on 1 million records; BENCH_FULL=1: on 5 million too
	$(BENCH_DIR)/bench e2e -slips ./slips -dir $(BENCH_DIR) -rounds $(BENCH_ROUNDS) -sizes 1000000$(if $(BENCH_FULL),$(comma)5000000)

comma := ,

.PHONY: bench-follow
bench-follow: bench-tools ## time from a line in a followed log to evidence on disk
	$(BENCH_DIR)/bench follow -slips ./slips

.PHONY: golden
golden: ## write the expected results of all tests anew; review the difference
	$(GO) test $$($(GO) list ./modules/... | grep -v -e '/modules$$' -e '/all$$' -e '/modtest$$') -update
	$(GO) test ./alerts/export -update
	$(GO) test ./cmd/slips -run 'TestCaptures|TestGolden' -update

.PHONY: demo
demo: build ## analyse a small capture and show the alert
	./slips -f testdata/captures/demo -o output/demo --overwrite
	@echo; echo "from output/demo/alerts/alerts.log:"; grep 'Generated an alert' output/demo/alerts/alerts.log

.PHONY: cross
cross: ## build and vet for all platforms
	@for p in $(PLATFORMS); do \
		echo "== $$p"; \
		export CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/}; \
		$(GO) build -trimpath -o /dev/null ./cmd/slips; \
		$(GO) vet ./...; \
	done

.PHONY: ci
ci: ## all that has to pass
	bash .ci/run

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf slips output $(BENCH_DIR)
