#include "tally.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"Usage: tally [-n COUNT] [FILE]...\n"
	"Print how often each line occurs in the files, the most frequent first.\n"
	"Without a FILE, or for -, read standard input.\n"
	"\n"
	"  -n, --lines=COUNT  print only the first COUNT lines\n"
	"  -h, --help         print this help\n"
	"  -V, --version      print the version\n";

static const struct option options[] = {
	{ "lines", required_argument, NULL, 'n' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ NULL, 0, NULL, 0 },
};

static int complain(const char *about)
{
	fprintf(stderr, "tally: %s: %s\n", about, strerror(errno));
	return 1;
}

static int count_file(struct tally *table, const char *name)
{
	FILE *stream = strcmp(name, "-") == 0 ? stdin : fopen(name, "r");
	int result;

	if (stream == NULL)
		return complain(name);
	result = tally_read(table, stream) != 0 ? complain(name) : 0;
	if (stream != stdin)
		fclose(stream);
	return result;
}

static int print(const struct tally *table, unsigned long most)
{
	struct tally_entry *entries = tally_sorted(table);

	if (entries == NULL)
		return complain("cannot sort");
	for (const struct tally_entry *entry = entries; entry->line != NULL && most > 0; entry++, most--)
		printf("%7lu %s\n", entry->count, entry->line);
	free(entries);
	return fflush(stdout) != 0 ? complain("standard output") : 0;
}

static int parse_count(const char *text, unsigned long *count)
{
	char *end;

	errno = 0;
	*count = strtoul(text, &end, 10);
	return errno == 0 && end != text && *end == '\0' && text[0] != '-' ? 0 : -1;
}

int main(int argc, char **argv)
{
	unsigned long most = (unsigned long)-1;
	struct tally *table;
	int option;
	int result = 0;

	while ((option = getopt_long(argc, argv, "n:hV", options, NULL)) != -1) {
		switch (option) {
		case 'n':
			if (parse_count(optarg, &most) != 0) {
				fprintf(stderr, "tally: not a number: %s\n", optarg);
				return 2;
			}
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			printf("tally %s\n", tally_version());
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	table = tally_new();
	if (table == NULL)
		return complain("cannot start");
	if (optind == argc)
		result = count_file(table, "-");
	for (int i = optind; i < argc; i++)
		result |= count_file(table, argv[i]);
	result |= print(table, most);
	tally_free(table);
	return result;
}
