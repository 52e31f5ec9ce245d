/*
 * What paths of the kernel cost, in ticks of the TSC: instructions where the machine counts them.
 *
 * Without arguments everything is measured; a number is the largest memory, in MiB, that a forking
 * process has. Each line is a metric and its figure: the median where there are many, per page where pages are
 * written, the loop around it included (three instructions a page).
 *
 * Built static with glibc (costs) and with musl (costs-musl).
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096ul
#define TABLE (2ul << 20)
#define ROUNDS 15
#define TABLES 32

/* What a child tells its parent. */
static volatile uint64_t *told;

static inline uint64_t ticks(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* A call whose arguments stay as they are, so that nothing but the kernel is measured. */
static inline long call(long number, long first)
{
	register long fourth __asm__("r10") = 0;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(first), "S"(0L), "d"(0L), "r"(fourth)
			 : "rcx", "r11", "memory");
	return result;
}

static void fail(const char *why)
{
	perror(why);
	exit(1);
}

static void say(const char *metric, uint64_t figure)
{
	printf("%s %llu\n", metric, (unsigned long long)figure);
	fflush(stdout);
}

static int order(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

static uint64_t median(uint64_t *figures, int count)
{
	qsort(figures, count, sizeof *figures, order);
	return figures[count / 2];
}

static char *map(size_t len, int flags)
{
	char *start = mmap(NULL, len, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (start == MAP_FAILED)
		fail("mmap");
	return start;
}

/* Writes a page at each step. */
static void touch(volatile char *start, size_t len, size_t step, char value)
{
	for (size_t at = 0; at < len; at += step)
		start[at] = value;
}

static void null_call(void)
{
	uint64_t figures[ROUNDS];

	for (int round = 0; round < ROUNDS; round++) {
		uint64_t start = ticks();

		for (int times = 0; times < 1000; times++)
			call(SYS_getppid, 0);
		figures[round] = (ticks() - start) / 1000;
	}
	say("null-call", median(figures, ROUNDS));
}

/* Forks, lets the child exit, and waits for it; the time the fork took in the parent. */
static uint64_t fork_exit_wait(void)
{
	uint64_t start = ticks(), forked;
	long child = call(SYS_fork, 0);

	if (child == 0) {
		/* Memory that both see is in one page table with other small mappings. */
		told[0] = ticks();
		for (;;)
			call(SYS_exit_group, 0);
	}
	forked = ticks();
	if (child < 0)
		fail("fork");
	if (call(SYS_wait4, child) != child)
		fail("wait4");
	return forked - start;
}

/* The same by a process that has written `kib` KiB. */
static void fork_with(unsigned long kib)
{
	uint64_t forks[ROUNDS], wholes[ROUNDS];
	size_t len = kib << 10;
	char *memory = map(len, MAP_PRIVATE), metric[64];

	touch(memory, len, PAGE, 1);
	for (int round = 0; round < ROUNDS; round++) {
		uint64_t start = ticks();

		forks[round] = fork_exit_wait();
		wholes[round] = ticks() - start;
	}
	snprintf(metric, sizeof metric, "fork-call/%luKiB", kib);
	say(metric, median(forks, ROUNDS));
	snprintf(metric, sizeof metric, "fork-exit-wait/%luKiB", kib);
	say(metric, median(wholes, ROUNDS));
	munmap(memory, len);
}

/* What a child pays for writing to memory that it shares: for the first write below each last-level table, then for
 * each page below tables that are its own. */
static void copy_on_write(void)
{
	uint64_t firsts[TABLES], start;
	char *memory = map((TABLES + 1) * TABLE, MAP_PRIVATE);
	long child;

	memory += -(uintptr_t)memory % TABLE;
	touch(memory, TABLES * TABLE, PAGE, 1);
	child = call(SYS_fork, 0);
	if (child == 0) {
		/* The stack's page is the child's own before that is measured. */
		for (int table = 0; table < TABLES; table++)
			firsts[table] = 0;
		for (int table = 0; table < TABLES; table++) {
			start = ticks();
			memory[table * TABLE] = 2;
			firsts[table] = ticks() - start;
		}
		told[0] = firsts[0];
		told[1] = median(firsts + 1, TABLES - 1);
		told[2] = firsts[TABLES - 1]; /* they are in order now */
		start = ticks();
		for (int table = 0; table < TABLES; table++)
			touch(memory + table * TABLE + PAGE, TABLE - PAGE, PAGE, 2);
		told[3] = (ticks() - start) / (TABLES * (TABLE / PAGE - 1));
		for (;;)
			call(SYS_exit_group, 0);
	}
	if (child < 0 || call(SYS_wait4, child) != child)
		fail("fork");
	say("first-write-of-all", told[0]);
	say("first-write-in-table", told[1]);
	say("first-write-in-table-max", told[2]);
	say("cow-copy", told[3]);
	start = ticks();
	touch(memory, TABLES * TABLE, PAGE, 3);
	say("cow-reuse", (ticks() - start) / (TABLES * TABLE / PAGE));
}

/* Writes to pages that are not there yet. */
static void demand_zero(void)
{
	size_t len = TABLES * TABLE;
	char *memory = map(len, MAP_PRIVATE);
	uint64_t start = ticks();

	touch(memory, len, PAGE, 1);
	say("demand-zero", (ticks() - start) / (len / PAGE));
	munmap(memory, len);
}

static void *sleep_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

/* What each of so many threads costs that sleep when their process is killed. */
static void kill_threads(int count)
{
	char metric[64];
	uint64_t start;
	long child;

	told[0] = 0;
	child = fork();
	if (child == 0) {
		pthread_attr_t small;
		pthread_t thread;

		pthread_attr_init(&small);
		pthread_attr_setstacksize(&small, 4 * PAGE);
		for (int made = 0; made < count; made++)
			if (pthread_create(&thread, &small, sleep_for_ever, NULL))
				fail("pthread_create");
		told[0] = 1;
		sleep_for_ever(NULL);
	}
	while (child > 0 && !told[0])
		usleep(1000);
	start = ticks();
	if (child < 0 || kill(child, SIGKILL) || call(SYS_wait4, child) != child)
		fail("a process with threads");
	snprintf(metric, sizeof metric, "thread-kill/%d", count);
	say(metric, (ticks() - start) / count);
}

int main(int argc, char **argv)
{
	static const unsigned long sizes_kib[] = { 64, 1 << 10, 64 << 10, 1 << 20 };
	unsigned long most_mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 64;

	told = (volatile uint64_t *)map(PAGE, MAP_SHARED);
	null_call();
	/* Until the kernel's pools are filled, and process numbers have as many digits as they will have. */
	for (int times = 0; times < 100; times++)
		fork_exit_wait();
	for (size_t n = 0; n < sizeof sizes_kib / sizeof *sizes_kib; n++)
		if (sizes_kib[n] >> 10 <= most_mib)
			fork_with(sizes_kib[n]);
	copy_on_write();
	demand_zero();
	kill_threads(100);
	kill_threads(3000);
	return 0;
}
