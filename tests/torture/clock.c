/* Another time of day for the programs that load this: the kernel's, and as many seconds more (or less) as stand in a
 * file, 64 bits of them, that is mapped and so can change at any moment. Everything else stays: waits, monotonic
 * clocks, the times of files.
 *
 * A library that does more was tried: libfaketime also takes the place of sleeps and waits, and has some of them fail
 * on a machine that is busy.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *difference;
static int (*kernel)(clockid_t, struct timespec *);

/* libvirt's programs wait for moments of this clock, and the kernel knows nothing of ours. */
static const char *const left_alone[] = {"libvirtd", "libvirt_lxc", "qemu-system"};

__attribute__((constructor)) static void begin(void) {
	kernel = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	const char *file = getenv("TORTURE_CLOCK");
	if (file == NULL)
		return;
	for (size_t index = 0; index < sizeof left_alone / sizeof *left_alone; index++)
		if (strncmp(program_invocation_short_name, left_alone[index], strlen(left_alone[index])) == 0)
			return;
	int descriptor = open(file, O_RDONLY | O_CLOEXEC);
	if (descriptor < 0)
		return;
	void *place = mmap(NULL, sizeof *difference, PROT_READ, MAP_SHARED, descriptor, 0);
	close(descriptor);
	if (place != MAP_FAILED)
		difference = place;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
	if (kernel == NULL)
		begin();
	int result = kernel(clock, now);
	if (result == 0 && difference != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += *difference;
	return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
	struct timespec exactly;
	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &exactly) != 0)
		return -1;
	now->tv_sec = exactly.tv_sec;
	now->tv_usec = exactly.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *into) {
	struct timespec now;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return (time_t)-1;
	if (into != NULL)
		*into = now.tv_sec;
	return now.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
	return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}
