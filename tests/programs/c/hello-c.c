/*
 * A C library's start-up and the parts of it that lean on the kernel: arguments, environment,
 * stdio, malloc, threads, thread-local storage, locale, time, errno.
 *
 * Built static with glibc (hello-c) and with musl (hello-c-musl).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS 10000

static __thread int own = 5;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;
static long total;

static void *worker(void *argument)
{
	own += (int)(long)argument;
	pthread_barrier_wait(&barrier);
	for (int round = 0; round < ROUNDS; round++) {
		pthread_mutex_lock(&lock);
		total += own;
		pthread_mutex_unlock(&lock);
	}
	return (void *)(long)own;
}

static void threads(void)
{
	pthread_t thread[THREADS];
	long sum = 0;

	pthread_barrier_init(&barrier, NULL, THREADS);
	for (long n = 0; n < THREADS; n++)
		if (pthread_create(&thread[n], NULL, worker, (void *)n))
			abort();
	for (int n = 0; n < THREADS; n++) {
		void *result;

		pthread_join(thread[n], &result);
		sum += (long)result;
	}
	printf("threads: total %ld, results %ld, mine %d\n", total, sum, own);
}

static void *sleeper(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void cancellation(void)
{
	pthread_t thread;
	void *result;

	pthread_create(&thread, NULL, sleeper, NULL);
	pthread_cancel(thread);
	pthread_join(thread, &result);
	printf("cancelled: %d\n", result == PTHREAD_CANCELED);
}

static void allocation(void)
{
	unsigned long sum = 0;

	for (int round = 0; round < 100; round++) {
		size_t size = (size_t)1 << (round % 22);
		unsigned char *block = malloc(size);

		memset(block, round, size);
		block = realloc(block, size * 2);
		sum += block[size / 2] + block[0];
		free(block);
	}
	printf("malloc: %lu\n", sum);
}

static void files(void)
{
	char name[] = "hello-XXXXXX", line[64] = "";
	int fd = mkstemp(name);
	FILE *file = fdopen(fd, "w+");
	struct stat st;

	fprintf(file, "%s %d %.3f\n", "line", 42, 2.5);
	rewind(file);
	if (!fgets(line, sizeof line, file))
		perror("fgets");
	fstat(fd, &st);
	fclose(file);
	unlink(name);
	printf("file: %s", line);
	printf("size %ld, mode %o\n", (long)st.st_size, st.st_mode);
	errno = 0;
	fd = open("/no/such/file", O_RDONLY);
	printf("open: %d %s\n", fd, strerror(errno));
}

static void pipes(void)
{
	char word[32] = "";
	FILE *pipe;
	int status;
	int ends[2];
	pid_t child;

	if (pipe2(ends, O_CLOEXEC))
		perror("pipe2");
	child = fork();
	if (child == 0) {
		dprintf(ends[1], "from the child");
		_exit(7);
	}
	close(ends[1]);
	pipe = fdopen(ends[0], "r");
	if (!fgets(word, sizeof word, pipe))
		perror("fgets");
	fclose(pipe);
	waitpid(child, &status, 0);
	printf("pipe: %s, status %d\n", word, WEXITSTATUS(status));
}

static void at_exit(void)
{
	puts("atexit");
}

int main(int argc, char **argv)
{
	struct timespec now;
	struct tm tm;
	time_t epoch = 86400 * 365;

	printf("hello from C, %d arguments\n", argc - 1);
	for (int n = 1; n < argc; n++)
		printf("argument %d: %s\n", n, argv[n]);
	printf("page size %ld, random bytes: %d, vdso: %d\n", sysconf(_SC_PAGESIZE), getauxval(AT_RANDOM) != 0,
	       getauxval(AT_SYSINFO_EHDR) != 0);
	threads();
	cancellation();
	allocation();
	files();
	pipes();
	gmtime_r(&epoch, &tm);
	printf("clock: %d, year %d\n", clock_gettime(CLOCK_MONOTONIC, &now), tm.tm_year + 1900);
	atexit(at_exit);
	return argc > 1 ? atoi(argv[1]) : 0;
}
