/* Count how often each line occurs. */
#ifndef TALLY_H
#define TALLY_H

#include <stddef.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A table of lines and how often each was counted. */
struct tally;

struct tally_entry {
	const char *line; /* without its line end; belongs to the table */
	unsigned long count;
};

/* A new, empty table, or NULL without memory. */
struct tally *tally_new(void);

void tally_free(struct tally *table);

/* Count one line of LENGTH bytes. Returns 0, or -1 without memory. */
int tally_add(struct tally *table, const char *line, size_t length);

/* Count every line of a stream. Returns 0, or -1 with errno set. */
int tally_read(struct tally *table, FILE *stream);

/* How many different lines were counted. */
size_t tally_size(const struct tally *table);

/*
 * The entries, most frequent first, equally frequent ones by their bytes. The array ends with an entry whose
 * line is NULL; the caller frees it. NULL without memory.
 */
struct tally_entry *tally_sorted(const struct tally *table);

const char *tally_version(void);

#ifdef __cplusplus
}
#endif
#endif
