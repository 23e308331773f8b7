# Uses a cache as a Rails application does whose environment has the code that the dashboard shows: of Rails
# only ActiveSupport, which has the cache stores.
#
# usage: rails.rb CODE

require "active_support"
require "active_support/cache"
require "active_support/core_ext"

config = Struct.new(:cache_store).new
eval(File.read(ARGV.fetch(0)), binding, ARGV.fetch(0))
cache = ActiveSupport::Cache.lookup_store(*config.cache_store)

cache.write("greeting", "hello", expires_in: 60)
puts cache.read("greeting")
