# SPDX-License-Identifier: Apache-2.0
# Every target sets up what it needs. PYTHON chooses the interpreter of .venv, ARGS goes to the command:
#   make demo ARGS="--episodes 2 --seed 7"
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
# A sourced ROS 2 installation must not leak into the environment, which has its own ROS 2.
ifneq ($(AMENT_PREFIX_PATH),)
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH
endif

.PHONY: demo multitask test test-rooms soak lint reference setup clean clean-venv help

help:
	@echo "make demo    five episodes in the simulated cell, with a video"
	@echo "make test    all tests that this machine can run"
	@echo "make test-rooms  the rooms without torch and ROS, on PYTHON=python3.10 or another"
	@echo "make soak    tests that take minutes"
	@echo "make lint    ruff and mypy"
	@echo "make multitask  record, train and evaluate one policy for three tasks; takes hours"
	@echo "make reference  docs/reference from the code"
	@echo "make setup   only the set-up that the others share"
	@echo "make clean   remove what was built; clean-venv removes the environment too"

setup:
	@$(PYTHON) tools/set_up.py

demo: setup
	@$(BIN)/imagewam demo $(ARGS)

# The quick suite first: it needs no ROS graph and fails soonest. Then what takes long without one, and at last the
# graphs one after the other, because they need the cores for themselves. Tests marked gpu skip themselves without one.
test: export OMP_NUM_THREADS ?= 1
test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --ignore test/ros -m "not ros and not slow and not soak and not hardware" $(ARGS)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --ignore test/ros -m "slow and not soak and not hardware" $(ARGS)
	$(BIN)/python -m pytest -m "ros and not soak and not hardware" $(ARGS)

test-rooms: export OMP_NUM_THREADS ?= 1
test-rooms:
	$(PYTHON) tools/test_rooms.py $(ARGS)

soak: setup
	$(BIN)/python -m pytest -m "soak and not hardware" $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Three tasks, one policy: records, trains and evaluates for hours.
multitask: setup
	@$(BIN)/python tools/multitask.py $(ARGS)

reference: setup
	$(BIN)/python tools/make_reference.py

clean:
	rm -rf build install log .pytest_cache .mypy_cache .ruff_cache

clean-venv: clean
	rm -rf .venv
