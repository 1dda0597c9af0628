# Every task goes through bootstrap.py, which makes .venv on first use; `python3.11 bootstrap.py demo` is `make demo`.
PYTHON ?= $(firstword $(foreach name,python3.11 python3,$(shell command -v $(name))))
TASKS := demo test soak check bench docs mutants clean

.PHONY: $(TASKS)
$(TASKS):
	@$(or $(PYTHON),$(error there is no python3 here; install Python 3.11 or newer)) bootstrap.py $@
